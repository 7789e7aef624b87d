"""C files for a compiler to work on: made up, the same for the same seed, and valid.

Owns their text. Always holds: each has functions of loops, switches, arrays and calls of each
other, out of which an optimizer can not take much.
"""

import random
from typing import Final

STATEMENTS_PER_FUNCTION: Final = 12
WIDTH: Final = 32
"""Words of the arrays."""

HEAD: Final = f"""\
struct state {{ unsigned words[{WIDTH}]; double weights[{WIDTH}]; unsigned at; }};
"""
OPERATORS: Final = ("+", "-", "*", "^", "|", "&")


def c_file(seed: int, function_count: int) -> str:
    rng = random.Random(seed)
    return HEAD + "".join(_function(rng, number) for number in range(function_count))


def _function(rng: random.Random, number: int) -> str:
    body = "".join(_statement(rng, number) for _ in range(STATEMENTS_PER_FUNCTION))
    return f"""
unsigned f{number}(struct state *s, unsigned x, unsigned y)
{{
    unsigned i, z = s->words[x % {WIDTH}];
{body}    return x ^ y ^ z;
}}
"""


def _statement(rng: random.Random, number: int) -> str:
    kind = rng.randrange(5)
    if kind == 0:
        return f"    {rng.choice('xyz')} = {_expression(rng, 3)};\n"
    if kind == 1:
        return (
            f"    for (i = 0; i < {WIDTH}; i++) {{\n"
            f"        s->words[i] += {_expression(rng, 2)} ^ i;\n"
            f"        if (s->words[i] > {_expression(rng, 1)}) z += i; else y ^= s->words[i];\n"
            "    }\n"
        )
    if kind == 2:
        return (
            f"    for (i = {rng.randrange(8)}; i < {WIDTH}; i++)\n"
            f"        s->weights[i] = s->weights[{WIDTH - 1} - i] * {rng.random()} + x;\n"
        )
    if kind == 3:
        cases = "".join(
            f"    case {value}: {rng.choice('xyz')} = {_expression(rng, 2)}; break;\n"
            for value in range(8)
        )
        return f"    switch ({_expression(rng, 1)} % 8) {{\n{cases}    }}\n"
    if number:
        return (
            f"    z += f{rng.randrange(number)}(s, {_expression(rng, 1)}, {_expression(rng, 1)});\n"
        )
    return "    s->at++;\n"


def _expression(rng: random.Random, depth: int) -> str:
    if not depth:
        words = ("x", "y", "z", f"s->words[{rng.randrange(WIDTH)}]", f"{rng.getrandbits(31)}u")
        return rng.choice(words)
    operator = rng.choice(OPERATORS)
    return f"({_expression(rng, depth - 1)} {operator} {_expression(rng, depth - 1)})"
