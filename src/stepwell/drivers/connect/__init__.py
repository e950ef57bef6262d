"""Calls to apps in workers that connect by a WebSocket of their own (inngest-protocol §9).

`connection` is one worker's connection and `leases` are the calls in workers' hands: machines that know neither sockets nor clocks.
`roster` says which worker gets a call, `groups` which version of an app counts. `driver` puts them together for a server, which
brings the sockets.
"""

from stepwell.drivers.connect.driver import ConnectDriver
from stepwell.drivers.connect.timing import Timing

__all__ = ["ConnectDriver", "Timing"]
