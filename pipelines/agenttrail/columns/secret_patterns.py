"""Patterns of secrets, each with what takes its place: what is known by its name, by its form, by who takes it.

They are applied one after the other by RE2; in text that is JSON a quote has a backslash before it, and a line break is
two characters, of which the second is a letter.
"""

from __future__ import annotations

MASK = "[REDACTED]"
_NAMES = (
    r"api[_-]?key|access[_-]?key(?:[_-]?(?:id|secret))?|secret(?:[_-]?(?:access)?[_-]?key)?|client[_-]?secret|private[_-]?key|"
    r"(?:encryption|openai|account|subscription|master|signing|storage|license|deploy|kaggle|shared[_-]?access)[_-]?key|"
    r"(?:auth|access|refresh|id|session|security)[_-]?token|token|passwd|password|passwort|passphrase|sshpass|"
    r"db[_-]?pass|pwd|credentials?|signature|sig|x-amz-(?:signature|credential|security-token)|ossaccesskeyid|"
    r"authorization|cookie|_auth|assertion|psk|storepass|keypass|otp|mfa[_-]?code|recovery[_-]?code|"
    r"(?:php|j)sessid|jsessionid|sessionid"
)
_SAID = (
    r"passw(?:or)?d|passwort|passphrase|secret[_-]?(?:access[_-]?)?key|api[_-]?key|access[_-]?key(?:[_-]?secret)?|"
    r"(?:auth|access|session|security)[_-]?token"
)
"""Names after which a value may also stand without anything between, as in ``ENV API_KEY x1``."""
_EDGE = r"(?:^|[^a-z0-9]|\\+[nrt])"
_WORD = r"(?:\b|\\+[nrt])"
_BEFORE = r"(?:[a-z0-9_.-]*[a-z0-9_])?"  # PGPASSWORD, dbPassword
_BARE = r"[^\s\"'&,;}\]\\]|\\+[^\s\"'\\nrt]"
_MASKED = r"\[REDACTED\]"  # so that what is scrubbed again stays as it is
_VALUE = (
    # in quotes, also in quotes that are themselves part of quoted text (JSON in JSON), or bare
    r"(?:(\")(?:[^\"\\]|\\.)+|(')[^'\"]+|(\\+[\"'])(?:[^\"'\\]|\\+[^\"'\\])+"
    rf"|{_MASKED}(?:{_BARE})*|(?:{_BARE})+)"
)
_KEPT = rf"\1\2\3\4{MASK}"  # what stood before the value, and its opening quote
_PLAIN = r"[^\s\"'&,;}\]\\<>|]"
_WITH_DIGIT = rf"(?:[^\s\"'&,;}}\]\\<>|/0-9\[-]{_PLAIN}*[0-9]{_PLAIN}*|[0-9]{_PLAIN}{{5,}})"
"""A bare value that is no word of a sentence, no option, no path and no redirection."""
_ATTRIBUTE = r"[\"]value[\"]\s*:\s*(?:[{\[\s]*[\"](?:arrayValue|values|stringValue)[\"]\s*:\s*)+[{\[\s]*"
_OF_PROVIDERS = (
    r"gh[pousr]_|github_pat_|glpat-|glrt-|hf_|xox[abeprs][.-]|xapp-|sk-(?:ant-|proj-)?|[sr]k_live_|npm_|pypi-|gsk_|r8_|nvapi-|"
    r"hvs\.|tskey-|dop_v1_|SG\.|ya29\.|api_org_|AIza"
)
_FORMS = (
    r"(?:AKIA|ASIA|LTAI|AROA|AKID)[A-Za-z0-9]{12,}",
    rf"(?:{_OF_PROVIDERS})[A-Za-z0-9_.-]{{16,}}",
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
)
"""What is recognised by its own form: keys of clouds, code hosts and model providers, JSON web tokens."""
_LETTERS = {
    "p": r"az|twine|mongo\w*|useradd|usermod|crackmapexec|netexec|nxc|evil-winrm|hydra|xmrig|podman\s+login|ssh-keygen|"
    r"sqlcmd|ipmitool|unzip|mosquitto_\w+",
    "n": "ssh-keygen", "k": r"openssl\s+enc|ossutil\w*|gem", "c": r"snmp\w+", "t": "doctl",
    "u": "smb(?:client|map)|rpcclient",
}  # fmt: skip
"""Programs by the letter of the option that takes a secret."""
_BY_LETTER = "|".join(rf"(?:{programs})\b[^|;&\n]*?\s-{letter}" for letter, programs in _LETTERS.items())
_TAKES_PIPED = (
    "sudo|docker|podman|helm|gh|glab|chpasswd|passwd|cryptsetup|gpg|kinit|su|vault|npm|wandb|huggingface-cli|openssl|"
    "oc|kubectl|smbpasswd|aws|az|gcloud|skopeo|crane|oras|ssh-add|nmcli"
)
_LOGINS = (
    r"(?:wandb|vault|cargo|npm|hf|huggingface-cli|railway|gh|glab|flyctl|fly|heroku|modal|rclone|netlify)\s+"
    r"(?:login|obscure|auth(?:\s+(?:token|login))?|token|secret)|poetry\s+config\s+(?:pypi-token\S*|http-basic\S*\s+\S+)|"
    r"wpa_passphrase\s+\S+|htpasswd\s+(?:-\S+\s+)+\S+\s+\S+|net\s+use\s+\S+|"
    r"mc\s+(?:alias\s+set|config\s+host\s+add)(?:\s+\S+){3}|auth\s+(?:plain|login|xoauth2)"
)
"""What a secret follows by its place."""
_HOOKS = (
    r"hooks\.slack\.com/\w+/|discord(?:app)?\.com/api/webhooks/|api\.telegram\.org/(?:file/)?bot|"
    r"webhook\.office\.com/webhookb2/"
)
"""Addresses that are secrets by what follows."""
_OF_MANIFEST = (
    rf"name\\*[\"']?\s*:\s*\\*[\"']?{_BEFORE}(?:{_NAMES})\\*[\"']?(?:,|\s|\\+[nrt])+\\*[\"']?value\\*[\"']?\s*:\s*"
)
PATTERNS = (
    # user and password in a URL, or a password or token alone; and without a scheme, as user:password@host
    (r"(?i)([a-z][a-z0-9+.-]*://)(?:[^/\s:@\"'\\]*:[^/\s@\"'\\]+|[^/\s:@\"'\\]{16,})@", rf"\1{MASK}@"),
    (r"(\b[A-Za-z0-9_][A-Za-z0-9_.-]*:)[^\s:/@\"'\\\[]{6,}(@[A-Za-z0-9_])", rf"\1{MASK}\2"),
    # in the query of a URL also what is a secret nowhere else
    (r"(?i)([?&](?:key|code|auth|pass|k)=)[^&\s\"'\\\[]+", rf"\1{MASK}"),
    (
        rf"(?i)((?:{_HOOKS}))[^\s\"'\\\[][^\s\"'\\]*",
        rf"\1{MASK}",
    ),
    # Authorization: Bearer …, Basic …
    (rf"(?i)({_EDGE})(bearer|basic|token|apikey)(\s+)[a-z0-9._~+/=:-]{{8,}}", rf"\1\2\3{MASK}"),
    # name=value, "name": "value", --name value; with words before the name
    (
        rf"(?i)((?:{_EDGE}){_BEFORE}(?:{_NAMES})s?[0-9]*(?:\\*[\"'])?\]?\s*(?:=>|==?|:|%3D)\s*){_VALUE}",
        _KEPT,
    ),
    (rf"(?i)(--?(?:[a-z0-9-]*-)?(?:{_NAMES})(?:-command)?\s+){_VALUE}", _KEPT),
    (rf"(?i)({_EDGE}{_BEFORE}(?:{_SAID})\s+(?:is\s+|to\s+|:=\s*)?\\*[\"']?){_WITH_DIGIT}", rf"\1{MASK}"),
    # what is a secret only between quotes: {"pass": "value"}, {"auth": "value"}, {"username": "name", "key": "value"}
    (rf"(?i)([\"']_?(?:pass|auth)\\*[\"']\s*:\s*){_VALUE}", _KEPT),
    (rf"(?i)([\"']username\\*[\"']\s*:\s*\\*[\"'][^\"'\\]*\\*[\"']\s*,\s*\\*[\"']key\\*[\"']\s*:\s*){_VALUE}", _KEPT),
    (r"(?i)((?:seed[ _-]?phrase|mnemonic)\\*[\"']?\s*[:=]\s*\\*[\"']?)[^\s\"'\\\[][^\n\"'\\\[]*", rf"\1{MASK}"),
    # what programs take by letters of their own
    (
        rf"(?i)({_WORD}curl\b[^|;&\n]*?\s(?:-[ube]|--(?:proxy-)?user|--cookie|--cert|--oauth2-bearer)[\s=]*){_VALUE}",
        _KEPT,
    ),
    (
        rf"(?i)({_WORD}(?:sshpass|docker\s+login|mysql\w*|mariadb|zip|redis-cli|ldap\w+)\b[^|;&\n]*?\s-[paw]\s*){_VALUE}",
        _KEPT,
    ),
    (rf"(?i)({_WORD}(?:{_BY_LETTER})[\s=]+){_VALUE}", _KEPT),
    (rf"(?i)({_WORD}(?:https?|xh)\s[^|;&\n]*?-a[\s=]+){_VALUE}", _KEPT),
    (rf"({_WORD}7z[ar]?\b[^|;&\n]*?\s-p){_VALUE}", _KEPT),
    (rf"(?i)(\s-pass(?:in|out)?\s+\\*[\"']?pass:){_VALUE}", _KEPT),
    (rf"(?i)(--from-literal[\s=]\\*[\"']?[\w.-]+=){_VALUE}", _KEPT),
    (rf"(?i)({_WORD}(?:{_LOGINS})\s+){_WITH_DIGIT}", rf"\1{MASK}"),
    (rf"(?i)({_WORD}sqlplus\b\s+[^\s/]*/)[^\s@\"'\\\[]+", rf"\1{MASK}"),
    # what is said to a program: through a pipe, a here-string, a process substitution, a terminal
    (
        rf"(?i)({_WORD}(?:echo|printf)\s+(?:-[ne]+\s+)*){_VALUE}(\\*[\"']?\s*\|\s*(?:\w+=\S+\s+)*(?:{_TAKES_PIPED})\b)",
        rf"{_KEPT}\5",
    ),
    (rf"(?i)({_WORD}(?:{_TAKES_PIPED})\b[^|;&\n]*<<<\s*){_VALUE}", _KEPT),
    (rf"(?i)(<\(\s*(?:echo|printf)\s+(?:-[ne]+\s+)*){_VALUE}", _KEPT),
    (r"(\bsend(?:\s+--?)?\s+\\*[\"'])[^\"'\\\[]+(\\+r)", rf"\1{MASK}\2"),
    # a pair of user and value that stands for auth, by name or in the class HTTPBasicAuth
    (rf"(?i)((?:\bauth\s*=\s*|basicauth|digestauth)\s*\(\s*\\*[\"'][^\"'\\]*\\*[\"']\s*,\s*){_VALUE}", _KEPT),
    # attributes of spans, {"key": "name", "value": {"stringValue": "value"}}; manifests, name: NAME, value: value
    (
        rf"(?i)([\"]key[\"]\s*:\s*[\"](?:[^\"]*[^a-z0-9\"])?(?:{_NAMES})[\"]\s*,\s*{_ATTRIBUTE}){_VALUE}",
        _KEPT,
    ),
    (
        rf"(?i)({_WORD}{_OF_MANIFEST}){_VALUE}",
        _KEPT,
    ),
    *((rf"(\b|\\[nrt]){form}", rf"\1{MASK}") for form in _FORMS),
    (r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|$)", MASK),
)
"""Pattern and replacement."""
