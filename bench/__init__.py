"""The load tester: `liveroom bench SCENARIO`, or `python -m bench SCENARIO` in the source tree.

Goals: figures that are quoted with the command that made them; load from processes of its own;
latency from the intended send time; a proof with every figure that nothing was lost, doubled,
reordered or oversold, for every client. Non-goals: simulating people (that is the demo), and
being the fastest client. Each parameter has a small value for tests and a real one.
"""
