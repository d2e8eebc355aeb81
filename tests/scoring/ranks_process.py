"""Run by torchrun from test_ranks.py: scores as one of several processes, and writes what this one was asked.

`ranks_process.py ZOO HOW`: `whole` computes everything, `killed` sends SIGKILL to the process with RANK 1 at its third
batch, `broken` has other rows in each process first (`apart`), then meets a token for which the model gives no number.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from scoring_cases import LOSS, MANY, REWARD, models_of, rows_of
from wmtp.errors import WmtpError
from wmtp.scoring import work
from wmtp.scoring.scores import score_columns

zoo, how, rank = Path(sys.argv[1]), sys.argv[2], int(os.environ["RANK"])
work.BATCH_TOKENS, work.PART_SECONDS = 64, 0
answered, asked = work._answered, []


def noted(answer, texts, batch, kind):
    asked.append((kind.scored.score.name, batch))
    if how == "killed" and rank == 1 and len(asked) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return answered(answer, texts, batch, kind)


def score(name, documents, *scores):
    asked.clear()
    try:
        found = score_columns(rows_of(documents), scores, models_of(zoo), name="data.train")
        facts = {column.score.name: [column.is_computed, column.where, column.all_figures.tolist()] for column in found}
    except WmtpError as error:
        facts = {"error": type(error).__name__, "problem": error.problem}
    (zoo / f"{name}-{rank}.json").write_text(json.dumps({"asked": asked, **facts}))


work._answered = noted
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
if how == "broken":
    score("apart", MANY[: len(MANY) - rank], LOSS)
score(how, MANY, *[LOSS, REWARD][: 2 if how == "whole" else 1])
torch.distributed.destroy_process_group()
