"""What a turn says while it runs: its events, folded from the facts of the journal, and the streams of them.

May import what accepts and watches turns; the routes of the service, which give the streams, import it.
"""
