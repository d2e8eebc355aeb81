"""Data files of a few records, read as a recipe's are."""

import json

from wmtp.data.documents import read_documents
from wmtp.settings.data import DataSource


def read(*files, columns=None, **fields):
    source = DataSource.model_validate({"files": [str(file) for file in files], **fields})
    return read_documents(source, field="data.train", columns=columns or {})


def write_lines(path, *entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path
