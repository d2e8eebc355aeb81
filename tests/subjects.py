"""What oracles of `wmtp selftest` are shown in tests: a model and eight short documents."""

import torch

from tiny_models import VOCAB, tiny_mtp
from wmtp.data.example import Example
from wmtp.models.adapter import trainable
from wmtp.selftest.subject import Subject, with_made_up_scores


def make_subject(directory, model=None):
    made = torch.Generator().manual_seed(3)
    drawn = [torch.randint(0, VOCAB, (n,), generator=made, dtype=torch.int32) for n in (4, 30, 17, 9, 24, 2, 13, 21)]
    examples = [Example(ids, (index % 2) * (len(ids) // 3)) for index, ids in enumerate(drawn)]
    return Subject(trainable(model or tiny_mtp()).eval(), with_made_up_scores(examples), str(directory))
