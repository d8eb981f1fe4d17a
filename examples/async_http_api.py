"""Async HTTP API: a request starts the work and is answered at once; another URL says how far the work is."""

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dapr.ext.workflow as wf

runtime, client = wf.WorkflowRuntime(), wf.DaprWorkflowClient()


@runtime.workflow(name="render_video")
def render_video(ctx: wf.DaprWorkflowContext, title: str) -> Any:
    return (yield ctx.call_activity(render, input=title))


@runtime.activity(name="render")
def render(_ctx: wf.WorkflowActivityContext, title: str) -> str:
    return f"{title}.mp4"


class Api(BaseHTTPRequestHandler):
    """`POST /videos` starts a video, `GET /videos/<id>` says how it is doing: 202 until it has ended, then 200."""

    def do_POST(self) -> None:
        title = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._answer(202, client.schedule_new_workflow(render_video, input=title), "RUNNING", None)

    def do_GET(self) -> None:
        instance = self.path.removeprefix("/videos/")
        state = client.get_workflow_state(instance)
        ended = state.runtime_status.name in ("COMPLETED", "FAILED", "TERMINATED")
        self._answer(200 if ended else 202, instance, state.runtime_status.name, state.serialized_output)

    def _answer(self, code: int, instance: str, status: str, output: str | None) -> None:
        self.send_response(code)
        self.send_header("Location", f"/videos/{instance}")
        self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(json.dumps({"status": status, "output": output}).encode())


if __name__ == "__main__":
    runtime.start()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    with urllib.request.urlopen(f"{url}/videos", data=b"holiday") as accepted:
        print(f"POST /videos: {accepted.status}", flush=True)
        location = accepted.headers["Location"]
    client.wait_for_workflow_completion(location.removeprefix("/videos/"), timeout_in_seconds=60)
    with urllib.request.urlopen(f"{url}{location}") as ended:
        print(f"GET /videos/<id>: {ended.status} {ended.read().decode()}", flush=True)
    server.shutdown()
    runtime.shutdown()
