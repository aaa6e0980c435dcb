"""Writes expected.json: what jinja2 renders, in the environment of transformers' `_compile_jinja_template`.

Run in this folder with Python 3.11 and jinja2 3.1.6. The environment is that of transformers 4.57.6
(utils/chat_template_utils.py): an immutable sandbox, trim_blocks, lstrip_blocks, loop controls, its own tojson,
raise_exception and strftime_now; `{% generation %}` renders its body. The real templates are named in REAL.
"""

import json
from datetime import datetime
from pathlib import Path

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = "2026-01-15T12:00:00"


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = lambda format: datetime.fromisoformat(NOW).strftime(format)


def render(source, case, tokens):
    variables = {"tools": None, "documents": None, "add_generation_prompt": True, **tokens, **case}
    try:
        return {"text": env.from_string(source).render(**variables)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


folder = Path(__file__).parent
tokens = {"bos_token": "<s>", "eos_token": "</s>"}
cases = json.loads((folder / "cases.json").read_text())
expected = {}
for path in sorted(folder.glob("*.jinja")):
    expected[path.stem] = {name: render(path.read_text(), case, tokens) for name, case in cases.items()}
features = []
for line in (folder / "features.txt").read_text().split("\n----\n"):
    source = line.strip("\n")
    features.append({"source": source, **render(source, cases["features"], tokens)})
for name in expected:
    del expected[name]["features"]
out = {"now": NOW, **tokens, "cases": cases, "expected": expected, "features": features}
(folder / "expected.json").write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")
print(sum(len(x) for x in expected.values()), "renders,", len(features), "features,",
      sum("error" in x for x in features), "of them errors")
