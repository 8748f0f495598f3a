"""Turn taking as small strategies, one a file. Pure: they are told what was said and judge; the conversation acts.

| file | decides |
|---|---|
| `hangover` | by voice detection: when an utterance begins and ends |
| `transcript` | by its words: whether an utterance that ended is the whole turn |
| `minimum_words`, `backchannel`, `must_hear` | whether words said into the agent's voice stop it |
| `push_to_talk` | a button instead of voice detection |
| `keypad` | digits typed on a phone as a turn |
"""

from switchroom.realtime.turns.base import AgentTalk, EndOfTurn, Interruption, Verdict, judge
from switchroom.realtime.turns.choose import end_of_turn, interruptions

__all__ = ["AgentTalk", "EndOfTurn", "Interruption", "Verdict", "end_of_turn", "interruptions", "judge"]
