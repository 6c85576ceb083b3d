"""The acting half of pilotflow: thin loops that own sockets, processes and clocks."""
