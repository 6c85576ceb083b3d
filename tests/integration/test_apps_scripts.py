"""Functions and classes of scripts and notebooks: they travel by value and keep their identity."""

from __future__ import annotations

from pathlib import Path

from tests.integration.scripts import run_script


def test_functions_of_a_script_work_as_apps(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text(
        "import functools\n"
        "def loud(f):\n"
        "    @functools.wraps(f)\n"
        "    def wrapper(*args): return f(*args) + '!'\n"
        "    return wrapper\n"
        "def shout(text): return text.upper()\n"
    )
    done = run_script(
        tmp_path,
        """
        import math
        import functools
        from os.path import basename
        import pilotflow as pf
        import helpers
        from helpers import loud

        OFFSET = 100
        TABLE = {"a": [1, 2]}

        @pf.python_app
        def with_globals(x, default=OFFSET):
            return math.floor(x) + OFFSET + default + TABLE["a"][1] + len(basename("a/bc"))

        @pf.python_app
        def recursive(n):
            return factorial(n)

        def factorial(n):
            return 1 if n < 2 else n * factorial(n - 1)

        @pf.python_app
        def mutually_recursive(n):
            return even(n)

        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - 1)

        @pf.python_app
        @loud
        def greet(name):
            return helpers.shout("hello " + name)

        @pf.python_app
        def counting():
            global OFFSET
            OFFSET += 1
            return OFFSET

        @pf.bash_app
        def echo(word, stdout=pf.AUTO_LOGNAME):
            return f"echo {helpers.shout(word)}"

        def make(n):
            def closure(x):
                return x * n
            return pf.python_app(closure)

        if __name__ == "__main__":
            with pf.load(pf.Config.for_this_machine(max_workers=2)):
                print(with_globals(2.5).result())
                print(recursive(10).result())
                print(mutually_recursive(10).result(), mutually_recursive(7).result())
                print(greet("you").result())
                print(counting().result() > 100, OFFSET)
                command = echo("word")
                command.result()
                print(open(command.stdout).read().strip())
                print(make(3)(5).result(), make(4)(5).result())
                print(pf.python_app(lambda x: x - OFFSET)(1).result())
                print(pf.python_app(helpers.shout)("by name").result())
                print(pf.python_app(functools.partial(math.pow, 2))(5).result())
        """,
    )
    assert done.stdout.splitlines() == [
        "206",
        "3628800",
        "True False",
        "HELLO YOU!",
        "True 100",
        "WORD",
        "15 20",
        "-99",
        "BY NAME",
        "32.0",
    ]


def test_classes_of_a_script_keep_their_identity_there_and_back(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import collections
        from dataclasses import dataclass, field
        from enum import Enum, IntFlag
        from typing import NamedTuple
        import pilotflow as pf

        class Color(Enum):
            RED = 1
            BLUE = 2
            def nice(self): return self.name.lower()

        class Access(IntFlag):
            READ = 4
            WRITE = 2

        @dataclass
        class Point:
            x: int
            tags: list = field(default_factory=list)
            def moved(self): return Point(self.x + 1, self.tags)

        @dataclass(frozen=True, slots=True)
        class Slotted:
            x: int

        class Base:
            made = 0
            def __init__(self, x): self.x = x
            @property
            def double(self): return self.x * 2
            @classmethod
            def make(cls, x): return cls(x)
            @staticmethod
            def triple(x): return x * 3
            def __eq__(self, other): return type(self) is type(other) and self.x == other.x
            def __hash__(self): return hash(self.x)

        class Derived(Base):
            def __init__(self, x): super().__init__(x + 1)

        class Pair(NamedTuple):
            left: int
            right: str = "r"

        Old = collections.namedtuple("Old", "u v")

        class Problem(Exception):
            def __init__(self, code, detail):
                super().__init__(f"{code} {detail}")
                self.code = code

        @pf.python_app
        def check(value, kind):
            assert type(value) is kind, (type(value), kind)
            return type(value) is globals()[kind.__name__] if kind is Point else True

        @pf.python_app
        def points(p):
            assert isinstance(p, Point)
            return [p, p.moved(), Point(9)]

        @pf.python_app
        def colors(c):
            assert c is Color.RED and c.nice() == "red"
            return [Color.BLUE, Access.READ | Access.WRITE]

        @pf.python_app
        def same(*values):
            return values

        @pf.python_app
        def class_id(value):
            return id(type(value))

        @pf.python_app
        def count(base):
            Base.made += 1
            return base.double, Base.make(1).x, Base.triple(2)

        @pf.python_app
        def trouble():
            raise Problem(7, "seven")

        if __name__ == "__main__":
            with pf.load(pf.Config.for_this_machine(max_workers=1)):
                print(check(Point(1), Point).result())
                found = points(Point(1)).result()
                print(found, all(type(p) is Point for p in found))
                blue, access = colors(Color.RED).result()
                print(blue is Color.BLUE, access is Access.READ | Access.WRITE)
                values = (Slotted(1), Base(2), Derived(3), Pair(1), Old(1, 2), {Base(4): Pair(5)}, Point)
                back = same(*values).result()
                print(back == values, all(type(a) is type(b) for a, b in zip(values, back)), back[-1] is Point)
                print(isinstance(back[2], Base), back[2].double)
                print(len({class_id(Base(i)).result() for i in range(5)}))
                print(count(Derived(4)).result(), Base.made)
                try:
                    trouble().result()
                except Problem as problem:
                    print("Problem", problem.code)
                print([type(p) is Point for p in same(points(Point(1)), points(Point(2))).result()[0]])
        """,
    )
    assert done.stdout.splitlines() == [
        "True",
        "[Point(x=1, tags=[]), Point(x=2, tags=[]), Point(x=9, tags=[])] True",
        "True True",
        "True True True",
        "True 8",
        "1",
        "(10, 1, 6) 0",
        "Problem 7",
        "[True, True, True]",
    ]


def test_a_cell_that_is_run_again_sends_the_new_body(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import pilotflow as pf

        CELL = '''
        @pf.python_app
        def cell(x):
            return helper(x) * {factor}

        def helper(x):
            return Box(x).value + {factor}

        class Box:
            version = {factor}
            def __init__(self, value): self.value = value
        '''
        import textwrap

        with pf.load(pf.Config.for_this_machine(max_workers=1)):
            for factor in (1, 10, 100):
                exec(textwrap.dedent(CELL.format(factor=factor)), globals())
                old = Box
                print(cell(2).result(), pf.python_app(lambda b: b)(Box(1)).result().version, end=" ")
            print(cell(2).result())
        """,
    )
    assert done.stdout.split() == ["3", "1", "120", "10", "10200", "100", "10200"]


FAILING = """
import traceback
import pilotflow as pf

@pf.python_app
def half(x):
    return helper(x)

def helper(x):
    return x / 0  # as told

if __name__ == "__main__":
    with pf.load():
        print("".join(traceback.format_exception(half(1).exception())))
"""


def test_the_traceback_of_a_script_s_function_shows_its_file_and_its_lines_remote_and_rebuilt(tmp_path: Path) -> None:
    remote, rebuilt = run_script(tmp_path, FAILING).stdout.split("The above exception was the direct cause")
    for text in (remote, rebuilt):
        assert text.count('.py", line 7, in half') == 1
        assert "return helper(x)" in text
        assert "return x / 0  # as told" in text


def test_a_script_uses_caches_dispatch_and_types_of_its_own_in_tasks(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import functools
        from collections.abc import Callable
        from typing import NewType, ParamSpec, TypeVar
        import pilotflow as pf

        Metres = NewType("Metres", float)
        P = ParamSpec("P")
        R = TypeVar("R")
        calls = []

        def traced(function: Callable[P, R]) -> Callable[P, R]:
            @functools.wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> R:
                return function(*args, **kwargs)
            return call

        @functools.cache
        def fibonacci(n):
            calls.append(n)
            return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

        @functools.singledispatch
        def kind(value):
            return "something"

        @kind.register
        def _(value: int):
            return "a number"

        class Sphere:
            def __init__(self, radius): self.radius = radius
            @functools.cached_property
            def diameter(self): return 2 * self.radius
            @functools.lru_cache(maxsize=3)
            def scaled(self, by): return self.radius * by

        @pf.python_app
        def counted(n):
            return fibonacci(n), len(calls)

        @pf.python_app
        def kinds(*values):
            return [kind(value) for value in values]

        @pf.python_app
        def measure(sphere, length: Metres = Metres(2.0)) -> Metres:
            return sphere.diameter, sphere.scaled(5), traced(lambda: length)()

        class Missing:
            def __reduce__(self): return "MISSING"
        MISSING = Missing()

        @pf.python_app
        def given(value=MISSING):
            return value is not MISSING

        with pf.load(pf.Config.for_this_machine(max_workers=1)):
            print(counted(20).result(), counted(20).result())
            print(pf.python_app(fibonacci)(10).result(), pf.python_app(Sphere.scaled)(Sphere(2), 2).result())
            print(kinds(1, "one").result(), measure(Sphere(1)).result())
            try:
                given().result()
            except pf.SerializationError as error:
                print(error)
        """,
    )
    cached, called, measured, said = done.stdout.splitlines()
    assert cached == "(6765, 21) (6765, 21)"  # the worker keeps what is cached, for its next tasks
    assert (called, measured) == ("55 4", "['a number', 'something'] (2, 5, 2.0)")
    assert "'MISSING'" in said
    assert "define it in a module" in said
