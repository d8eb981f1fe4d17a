"""Apps that subscribe, and what they answer."""

from everturn.dapr.wire import Response
from everturn.runtime.resources.resiliency import DEFAULT_DELIVERY_RETRY
from tests.unit.runtime.conftest import Rig, ScriptedApp

LONGEST_DELAY_S = DEFAULT_DELIVERY_RETRY.longest_delay_s

RETRY = Response(200, {}, b'{"status":"RETRY"}')
DROP = Response(200, {}, b'{"status":"DROP"}')
SUCCESS = Response(200, {}, b'{"status":"SUCCESS"}')


async def subscribed(rig: Rig, app: ScriptedApp, app_id: str = "app-a") -> None:
    rig.add_app(app_id, app)
    await rig.start(app_id)
