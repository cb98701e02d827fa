"""Tests see a program's functions as if both were in one process: results, arguments, exceptions, objects."""

import sys

import pytest
from setup_helpers import absent

from t3d.errors import InputError
from t3d.sandbox.sandbox import Limits, Sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@pytest.fixture(scope="module")
def walls():
    try:
        return Sandbox(limits=Limits(time_limit_s=5.0))
    except InputError as error:
        absent(error.problem)


def cases(text):
    """Programs and their tests, which stand behind ">"."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        tests = [line.removeprefix("> ") for line in lines if line.startswith("> ")]
        found.append(("\n".join(line for line in lines if not line.startswith("> ")), "\n".join(tests)))
    return found


def failure(walls, source, *tests, **options):
    """Reason and detail of the first stage that failed; None if none did."""
    outcome = walls.run_tests(source, tests, **options)
    return next(((r.reason, r.detail) for r in outcome.reports if not r.passed), None)


VALUES = """
def f(x): x.sort(); return x
> x = [2, 1]; assert f(x) is x and x == [1, 2]

def f(x): x[0].append(x[1].pop())
> a, b = [1], [2]; f([a, b]); assert (a, b) == ([1, 2], [])

def f(x): x['k'] = [1]; return x['k']
> x = {}; y = f(x); assert x['k'] is y

def f(x, *, y): y.add(x)
> s = set(); f(1, y=s); assert s == {1}

def f(x):
    x.append(1)
    raise ValueError
> x = []
> try: f(x)
> except ValueError: pass
> assert x == [1]

def f(): return {3: 'a', 1: 'b'}
> assert list(f()) == [3, 1]

def f(): return (x * x for x in [1, 2])
> assert list(f()) == [1, 4]

def f(): yield from 'ab'
> assert next(f()) == 'a' and tuple(f()) == ('a', 'b')

def f(): return map(str, [1])
> assert f() != ['1'] and list(f()) == ['1']

def f(): return zip([1], 'a')
> assert dict(f()) == {1: 'a'} and (1, 'a') in f()

def f(): return {'a': 1}.keys()
> assert f() == {'a'} and sorted(f()) == ['a']

import re
def f(s): return re.search('a+', s)
> assert f('baa').group() == 'aa' and not f('b')

import collections
def f(s): return collections.Counter(s)
> assert f('aab')['a'] == 2 and f('') == {}

from decimal import Decimal
def f(): return Decimal('0.1') * 3
> from decimal import Decimal; assert f() == Decimal('0.3')

def f(n): return lambda x: x + n
> assert f(2)(3) == 5 and callable(f(1))

f = lambda *a, **k: (a, k)
> assert f(1, (2,), k={3}) == ((1, (2,)), {'k': {3}}) and f(self=1) == ((), {'self': 1})

def f(kind): return kind()
> assert f(list) == [] and f(str) == ''

def f(x): return type(x)
> assert f(1) is int and f(None) is type(None)

import numpy
def f(): return numpy.int64(3)
> assert f() == 3 and type(f()) is int

import numpy
def f(): return numpy.float32(.5), numpy.arange(2)
> assert f() == (.5, [0, 1])

import enum
class E(enum.IntEnum): A = 1
def f(): return E.A
> assert f() == 1

class L(list): pass
def f(): return L([1])
> assert f() == [1]

import collections
def f(): return collections.ChainMap({1: 2}, {3: 4}), collections.UserList([1])
> assert f() == ({1: 2, 3: 4}, [1])

class Integer:  # of a library
    __module__ = 'sympy.core.numbers'
    def __index__(self): return 120
def f(): return Integer()
> assert f() == 120

x = 1
def f():
    global x
    x += 1
> assert x == 1
> f()
> assert x == 2

def sum(a, b): return 0
> assert sum([1, 2]) == 3

from functools import lru_cache
@lru_cache
def f(n): return n and n + f(n - 1)
> assert f(50) == 1275

def f(x): return x != x
> assert f(float('nan')) and f(float('inf')) is False
"""


@pytest.mark.parametrize(("source", "test"), cases(VALUES))
def test_tests_see_the_values_that_they_would_see_in_one_process(walls, source, test):
    assert failure(walls, source, test) is None


OBJECTS = """
class Node:
    def __init__(self, value): self.value, self.next = value, None
def f(n): return n.next.value
> n = Node(1); n.next = Node(2); assert f(n) == 2 and n.next.value == 2

class Node:
    def __init__(self, value): self.value, self.next = value, None
def f(n): return n
> n = Node(1); assert f(n) is n and f([n])[0] == n and n != Node(1)

class Node:
    def __init__(self, value): self.value, self.next = value, None
def f(n): return n
> assert isinstance(Node(1), Node) and not isinstance(1, Node)

class Node:
    def __init__(self, value): self.value, self.next = value, None
def f(n): return n
> assert not hasattr(Node(1), 'x') and f(None) is None

import collections
P = collections.namedtuple('P', 'x y')
def f(p): return p.x
> assert f(P(1, 2)) == 1 and P(1, 2) == (1, 2) and P(1, 2).y == 2 and str(P(1, 2)) == 'P(x=1, y=2)'

class Stack(list):
    def push(self, x): self.append(x)
> s, t = Stack(), Stack([1]); s.push(1); assert s == [1] == s and s == t and s != [] and [s] == [[1]]
> assert s.pop() == 1 and not s and isinstance(s, list) and Stack('ab') == ['a', 'b']

from collections import OrderedDict
class Cache(OrderedDict):
    def get(self, key): return self[key] if key in self else -1
    def __missing__(self, key): return 0
> c = Cache(); c['a'] = 1; assert c.get('a') == 1 and c.get('b') == -1 and c['b'] == 0
> assert c == {'a': 1} == dict(c) and 'a' in c and len(c) == 1

class S:
    def __init__(self): self.a = []
    def push(self, x): self.a.append(x)
    def __len__(self): return len(self.a)
> s = S()
> assert not s; s.push(1); assert len(s) == 1 and s.a == [1]

class C:
    def __iter__(self): return iter([1, 2])
    def __str__(self): return 'c'
> assert list(C()) == [1, 2] and str(C()) == 'c' and f'{C()}' == 'c'
"""


@pytest.mark.parametrize(("source", "test"), cases(OBJECTS))
def test_objects_of_the_programs_classes_stay_where_they_are(walls, source, test):
    assert failure(walls, source, test) is None


EXCEPTIONS = """
def f(): return {}['k']
> try: f()
> except KeyError as e: assert e.args == ('k',)
> else: assert 0

def f(): return 1 / 0
> import unittest
> unittest.TestCase().assertRaises(ZeroDivisionError, f)

class E(ValueError): pass
def f(): raise E('x', 1)
> try: f()
> except ValueError as e: assert str(e) == "('x', 1)"
> else: assert 0

def f(): return b'\\xff'.decode()
> try: f()
> except UnicodeDecodeError as e: assert e.start == 0
> else: assert 0

def f(): int('x')
> try: f()
> except TypeError: assert 0
> except ValueError: pass
"""


@pytest.mark.parametrize(("source", "test"), cases(EXCEPTIONS))
def test_exceptions_cross_as_their_built_in_class(walls, source, test):
    assert failure(walls, source, test) is None


def test_a_name_of_pythons_is_the_programs_only_where_the_tests_say_so(walls):
    source = "def sum(a, b): return a * 10 + b"
    assert failure(walls, source, "assert sum(1, 2) == 12", program_names=("sum",)) is None
    assert failure(walls, source, "assert sum([1, 2]) == 3", program_names=("max",)) is None


def test_what_tests_define_goes_before_what_the_program_does(walls):
    source = "def helper(x): return 'forged'\ncheck = print\ndef f(x): return x"
    setup = "def helper(x): return x + 1\ndef check(g): assert g(helper(1)) == 2"
    assert failure(walls, source, "check(f)", "assert helper(1) == 2", setup=setup) is None


def test_what_cannot_be_given_to_a_program_is_an_error(walls):
    source = "def f(x): return 1"
    for value in ("lambda: 1", "f'{0}'.format", "__import__('math')"):
        reason, detail = failure(walls, source, f"f({value})")
        assert reason == "error" and "cannot be given to the program" in detail


@pytest.mark.parametrize(
    "source",
    [
        "class Equal:\n    __eq__ = lambda self, other: True\ndef f(): return Equal()",
        "class Equal(int):\n    __eq__ = lambda self, other: True\ndef f(): return Equal()",
        "class Equal:\n    __call__ = lambda self: self\n    __eq__ = lambda self, other: True\nf = Equal()",
    ],
)
def test_an_object_that_says_what_it_is_equal_to_is_suspicious(walls, source):
    reason, detail = failure(walls, source, "assert f() == 1")
    assert reason == "suspicious" and detail.startswith("Equal ")
    assert failure(walls, source, "try: f() == 1\nexcept BaseException: pass")[0] == "suspicious"


@pytest.mark.other_process
def test_a_tests_process_ends_with_its_program(walls):
    """Also where it computes, or waits, by itself."""
    for test in ("while True: pass", "import time; time.sleep(99)", "10 ** 10 ** 9", "list(iter(int, 1))"):
        outcome = walls.run_tests("", [test], time_limit_s=0.3)
        assert outcome.end == "timeout" or outcome.reports[-1].reason == "memory"
    assert failure(walls, "def f(): return 1", "assert f() == 1") is None
