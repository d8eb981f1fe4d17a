"""`everturn up` with a scripted model: the process that is measured. Settings come from the environment.

`BENCH_CALLS` names the file in which a model that never answers counts its calls; `BENCH_WORD_S` are the seconds that
one takes for a word; with `BENCH_TOOLS` it calls tools. With `EVERTURN_MODEL_BASE_URL` the models are the real ones.
"""

import gc
import os
from pathlib import Path

from everturn import logs
from everturn.models.providers import prepare_sdk
from everturn.settings import load_settings

if __name__ == "__main__":
    logs.configure()
    settings = load_settings()
    # As `everturn.cli.main` does.
    gc.disable()
    from everturn.cli.lean_start import leave_out

    leave_out(settings)
    from everturn.cli.up import run_up
    from everturn.compose import Wiring

    prepare_sdk()
    from benchmarks.scripted import HeldModel, ScriptedModel, SpeakingModel, ToolModel

    calls, word_s = os.environ.get("BENCH_CALLS"), os.environ.get("BENCH_WORD_S")
    if settings.model_base_url:
        wiring = Wiring()
    elif calls:
        wiring = Wiring(chat_model=HeldModel(Path(calls)), summary_model=ScriptedModel())
    elif word_s:
        wiring = Wiring(chat_model=SpeakingModel(float(word_s)), summary_model=ScriptedModel())
    else:
        model = ToolModel() if os.environ.get("BENCH_TOOLS") else ScriptedModel()
        wiring = Wiring(chat_model=model, summary_model=ScriptedModel())
    run_up(settings, wiring)
