"""Tele-FLM's chat template: `<_user>`, `<_system>` and `<_bot>` before what each says, and `<_bot>`
to begin a reply; no line ends, no BOS.

The published models have nothing behind a reply. With it a model that is tuned learns to stop; so
here `<_end>` stands there, unless the published form is asked for. Who answers for a tool has no
mark of its own there, and is written as the system is: that is ours too.
"""

USER, SYSTEM, BOT, END = CHAT_TOKENS = ("<_user>", "<_system>", "<_bot>", "<_end>")
SPARE_TOKENS = tuple(f"<_spare_{number}>" for number in range(60))
"""Tokens without a use, whose names are free for those of other templates."""

_TURNS = """\
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- '<_user>' + message['content'] -}}
    {%- elif message['role'] == 'system' or message['role'] == 'tool' -%}
        {{- '<_system>' + message['content'] -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- '<_bot>' + message['content'] + 'END' -}}
    {%- else -%}
        {{- raise_exception('a message by ' + message['role'] + ' has no mark') -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<_bot>' -}}
{%- endif -%}
"""

TEMPLATES = {
    "tele-flm": _TURNS.replace("END", END),
    "tele-flm-published": _TURNS.replace(" + 'END'", ""),
}
"""By the names that they are asked for."""
