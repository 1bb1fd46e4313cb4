"""Hold the marks by which models set their thoughts apart from their answer, as regular expressions."""

import re

_WORDS = (
    "(?:ant)?think(?:ing)?|thoughts?|thought_process|reason(?:ing)?|reflection|analysis|scratchpad|inner_monologue"
)
# <think>, <seed:think>, <|thinking|>; Magistral's [THINK]; Kimi's ◁think▷; OpenThinker's <|begin_of_thought|>;
# Cohere's <|START_THINKING|>; gpt-oss's analysis channel (harmony); Gemma's thought channel and <unused94>thought.
BEGINS = rf"""
    <\|?(?:\w{{1,16}}[:_-])?(?:{_WORDS})(?:\s[^<>{{}}]{{0,80}})?\|?> | \[THINK(?:ING)?\] | ◁think▷
    | <\|(?:begin_of_thought|START_THINKING)\|> | <\|channel\|?>\s{{0,9}}(?:analysis|thought)
    | <unused\d{{1,4}}>thought"""
ENDS = rf"""
    </(?:\w{{1,16}}[:_-])?(?:{_WORDS})\s?> | <\|/(?:{_WORDS})\|> | \[/THINK(?:ING)?\] | ◁/think▷
    | <\|(?:end_of_thought|END_THINKING)\|> | <\|channel\|>\s{{0,9}}final | <\|start\|>assistant<\|message\|>
    | <channel\|> | <unused\d{{1,4}}>(?!thought)"""
# Headings: **Thinking**:, ## Thought process, My reasoning:, Ollama's "Thinking..."; then **Final answer:**,
# "Here is the JSON:", Ollama's "...done thinking.".
_BEFORE_HEADING = r"^[^\w\n{<\[]{0,12}(?:\w{1,9}[ ])"
HEADING_BEGINS = rf"""
    {_BEFORE_HEADING}?(?:{_WORDS}|chain[ -]of[ -]thought|monologue)(?:[ ]process|[ ]steps?)?
    [*_]{{0,3}}[ \t]*(?::|\.\.\.|…|$)"""
_HEADING_ENDS = rf"""
    {_BEFORE_HEADING}{{0,4}}(?:(?:answer|output|response|reply|result|json|final)(?:[ ]object)?(?:[ ]is)?
    [*_]{{0,3}}[ \t]*(?::|$) | done[ ]thinking)"""

END_OF_THOUGHT = re.compile(ENDS, re.IGNORECASE | re.VERBOSE)
END_OF_HEADED_THOUGHT = re.compile(_HEADING_ENDS, re.IGNORECASE | re.MULTILINE | re.VERBOSE)
BARE_ANALYSIS = re.compile("analysis(?=[A-Z])")  # gpt-oss's channel, of an engine that drops special tokens
