"""`everturn up` with a scripted model: the process that is measured. Settings come from the environment.

`BENCH_CALLS` names the file in which a model that never answers counts its calls.
"""

import gc
import os
from pathlib import Path

from everturn import logs
from everturn.models.sdk import prepare_sdk
from everturn.settings import load_settings

if __name__ == "__main__":
    logs.configure()
    settings = load_settings()
    gc.disable()  # as `everturn.cli.main` does
    from everturn.cli.up import UpOptions, run_up

    prepare_sdk()
    from benchmarks.scripted import HeldModel, ScriptedModel

    calls = os.environ.get("BENCH_CALLS")
    chat_model = HeldModel(Path(calls)) if calls else ScriptedModel()
    run_up(settings, UpOptions(chat_model=chat_model, summary_model=ScriptedModel()))
