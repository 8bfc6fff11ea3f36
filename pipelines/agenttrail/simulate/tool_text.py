"""What agents tell their tools to do: innocent work, what looks worse than it is, opaque commands, and secrets in them.

All of it is made up here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agenttrail.simulate import outside

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrail.simulate.dice import Dice


class Errand(NamedTuple):
    """One call of a tool: which tool, its arguments by name, and the secrets in them."""

    tool: str
    arguments: dict[str, object]
    secrets: tuple[str, ...] = ()


_COMMANDS = (
    "ls -la", "ls -la {path}", "cat {path}/README.md", "cat {path}/{file}", "head -n {n} {path}/{file}", "pwd",
    "tail -n {n} logs/{word}.log", "wc -l {path}/*.py", "find . -name '{word}*' -type f", "git status",
    "git diff HEAD~1", "git log --oneline -n {n}", "git checkout -b fix/{word}",
    "git add -A && git commit -m 'fix {word}'", "tree -L 2", "grep -rn {word} {path}/",
    "grep -n 'def {word}' {path}/{file}", "sed -n '{n},+40p' {path}/{file}", "make", "make test", "pytest -q {path}",
    "pytest -q -k {word} {path}", "python3 -m pip install -r requirements.txt", "pip list | grep {word}",
    "python3 {path}/{file}", "python3 -c 'import {word}; print({word}.__version__)'", "npm test", "npm ci",
    "cargo build", "go test ./...", "cmake -B build && cmake --build build", "docker ps", "env | sort", "df -h",
    "free -m", "uptime", "ps aux --sort=-%mem | head", "nvidia-smi",
    "curl -s https://wheels.mirror.example/simple/{word}/", "tar xzf {word}.tgz",
    "git clone https://git.forge.example/{word}/{word}.git", "mkdir -p out/{word}", "rm -rf build && mkdir build",
    "diff -u {path}/{file} out/{file}", "jq '.{word}' out/{word}.json", "sqlite3 out/{word}.db '.tables'", "date -u",
    "time ./build/{word} --bench", "./run.sh", "bash setup.sh", "python3 train.py --fast", "black {path}",
    "mypy {path}", "for f in {path}/*.py; do python3 -m py_compile $f; done", "sort -u out/{word}.txt | wc -l",
    "echo done",
)  # fmt: skip
_LOOK_ALIKES = (
    "grep -rn stratum src/", "cat ssh-notes.md", "man ssh", "git log --grep=xmrig", "grep -n 'Port 22' docs/{word}.md",
    f"ssh -fN -L {{port}}:localhost:{{port}} dev@{outside.BASTIONS[0].domain}",
    f"ssh -L {{port}}:db.internal:5432 dev@{outside.BASTIONS[0].ipv4}", "cat docs/reverse-tunnels.md | head -n {n}",
    "sed -i 's/stratum/layer/g' {path}/{file}", "echo 'no miners here' >> notes.md", "ls ~/.ssh",
    "ssh-keygen -l -f key.pub", "grep -c 'mining' reports/{word}.csv",
    "python3 -c 'import socket; print(socket.gethostname())'", "git show pool-tests",
)  # fmt: skip
_GPU_COMMANDS = (
    "python3 train.py --config configs/{word}.yaml", "torchrun --nproc-per-node=1 train.py --lr 3e-{digit}",
    "nvidia-smi -l 1", "python3 evaluate.py --checkpoint out/step-{n}", "python3 train.py --fast",
    "accelerate launch {path}/{file}", "python3 -c 'import torch; print(torch.cuda.device_count())'",
    "tail -n {n} out/train.log", "bash setup.sh", "./run.sh",
)  # fmt: skip
_CODE = (
    "import json\nprint(json.load(open('out/{word}.json'))['{word}'])", "sum(range({n}))",
    "from {word} import main\nmain({n})", "import pandas as pd\nprint(pd.read_csv('data/{word}.csv').describe())",
    "[x ** 2 for x in range({n})]",
)  # fmt: skip
_WORDS = (
    "parser", "loader", "cache", "queue", "router", "planner", "widget", "ledger", "sampler", "metrics", "retry",
    "session", "schema", "tokens", "shard", "runner", "tasks", "index", "bridge", "report", "config", "filters",
    "layout", "batch",
)  # fmt: skip
_PATHS = ("src", "tests", "lib", "app/core", "tools/ci", "pkg/server", "notebooks")
_FILES = ("main.py", "model.py", "worker.go", "index.ts", "build.rs", "views.py", "data.py", "train.py", "conftest.py")
_OPAQUE = ("./run.sh", "python3 train.py --fast", "bash setup.sh")
_LOOKS_BAD, _OTHER_TOOL, _GPU_WORK = 0.04, 0.3, 0.35


def errand(dice: Dice, *, gpus: bool) -> Errand:
    """Return an innocent call of a tool."""
    if dice.happens(_LOOKS_BAD):
        return _shell(dice, _filled(dice, dice.pick(_LOOK_ALIKES)))
    if dice.happens(_OTHER_TOOL):
        return _OTHERS[dice.whole(0, len(_OTHERS) - 1)](dice)
    return _shell(dice, _filled(dice, dice.pick(_GPU_COMMANDS if gpus and dice.happens(_GPU_WORK) else _COMMANDS)))


def opaque(dice: Dice) -> Errand:
    """Return a call that does not tell what it does."""
    return _shell(dice, dice.pick(_OPAQUE))


def telling(dice: Dice, command: str) -> Errand:
    """Return a call that runs ``command``."""
    return _shell(dice, command)


def with_secret(dice: Dice, given: Errand) -> Errand:
    """Return a call of a shell with a secret on its command line; any other is returned as it is."""
    command = given.arguments.get("command")
    if not isinstance(command, str):
        return given
    said, secret = _SECRETS[dice.whole(0, len(_SECRETS) - 1)](dice)
    joined = f"{said} {command}" if "=" in said.split(" ")[0] else f"{said} && {command}"
    return Errand(given.tool, {**given.arguments, "command": joined}, (secret,))


def _shell(dice: Dice, command: str) -> Errand:
    arguments: dict[str, object] = {"command": command}
    if dice.happens(0.2):
        arguments["timeout"] = dice.pick((30, 60, 120, 600))
    return Errand(dice.pick(("bash", "bash", "shell", "terminal")), arguments)


def _filled(dice: Dice, text: str) -> str:
    if "{" not in text:
        return text
    for name, options in (("{word}", _WORDS), ("{path}", _PATHS), ("{file}", _FILES)):
        if name in text:
            text = text.replace(name, dice.pick(options))
    numbers = {"{n}": (5, 400), "{port}": (3_000, 9_000), "{digit}": (3, 5)}
    for name, bounds in numbers.items():
        if name in text:
            text = text.replace(name, str(dice.whole(*bounds)))
    return text


def _python(dice: Dice) -> Errand:
    return Errand("python", {"code": _filled(dice, dice.pick(_CODE))})


def _edit(dice: Dice) -> Errand:
    path, name = f"{dice.pick(_PATHS)}/{dice.pick(_FILES)}", dice.pick(_WORDS)
    old, new = f"def {name}(self):", f"def {name}(self, {dice.pick(_WORDS)}=None):"
    return Errand("edit_file", {"path": path, "old_text": old, "new_text": new})


def _read(dice: Dice) -> Errand:
    lines = [dice.whole(1, 200), dice.whole(201, 900)]
    return Errand("read_file", {"path": f"{dice.pick(_PATHS)}/{dice.pick(_FILES)}", "lines": lines})


def _search(dice: Dice) -> Errand:
    question = (
        f"{dice.pick(_WORDS)} {dice.pick(('example', 'error', 'how to', 'best practice', 'vs'))} {dice.pick(_WORDS)}"
    )
    return Errand("web_search", {"query": question})


_OTHERS: tuple[Callable[[Dice], Errand], ...] = (_python, _edit, _read, _search)


def _password(dice: Dice) -> tuple[str, str]:
    value = f"{dice.letters(6)}-{dice.letters(9)}"
    name = dice.pick(("PASSWORD", "DB_PASSWORD", "MYSQL_PWD"))
    return dice.pick((f"{name}={value}", f"export {name}={value}", f"mysql --password {value} -e 'select 1'")), value


def _token(dice: Dice) -> tuple[str, str]:
    value = dice.letters(40)
    shapes = (f"API_KEY={value}", f"export AUTH_TOKEN='{value}'", f'echo "client_secret: {value}" > app.yml')
    return dice.pick(shapes), value


def _header(dice: Dice) -> tuple[str, str]:
    value = dice.letters(32)
    kind = dice.pick(("Bearer", "Basic", "token"))
    return f'curl -s -H "Authorization: {kind} {value}" https://api.forge.example/v1/me', value


def _url(dice: Dice) -> tuple[str, str]:
    value = dice.letters(18)
    host = outside.GIT_HOSTS[0].domain
    return f"git clone https://builder:{value}@{host}/{dice.pick(_WORDS)}.git", value


def _cloud_key(dice: Dice) -> tuple[str, str]:
    form, length = dice.pick((("AKIA", 16), ("LTAI", 20)))
    value = form + dice.letters(length).upper()
    return f"aws configure set aws_id {value}", value


def _cloud_secret(dice: Dice) -> tuple[str, str]:
    value = dice.letters(40)
    return f"AWS_SECRET_ACCESS_KEY={value}", value


def _host_token(dice: Dice) -> tuple[str, str]:
    value = dice.pick(("ghp_", "glpat-", "hf_", "sk-")) + dice.letters(36)
    return f"echo {value} > .netrc", value


def _web_token(dice: Dice) -> tuple[str, str]:
    value = f"eyJ{dice.letters(24)}.eyJ{dice.letters(40)}.{dice.letters(43)}"
    return f"echo {value} | cut -d. -f2", value


def _signed(dice: Dice) -> tuple[str, str]:
    value = dice.hexadecimal(64)
    store = outside.OBJECT_STORES[1].domain
    return f"curl -s 'https://{store}/a.tar?X-Amz-Date=1&X-Amz-Signature={value}' -o a.tar", value


def _private_key(dice: Dice) -> tuple[str, str]:
    value = dice.letters(64)
    return f"echo '-----BEGIN RSA PRIVATE KEY-----\n{value}\n-----END RSA PRIVATE KEY-----' > id_rsa", value


_SECRETS: tuple[Callable[[Dice], tuple[str, str]], ...] = (
    _password, _token, _header, _url, _cloud_key, _cloud_secret, _host_token, _web_token, _signed, _private_key,
)  # fmt: skip
"""Secrets of all shapes; none is real."""
