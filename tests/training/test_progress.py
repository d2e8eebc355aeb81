from types import SimpleNamespace

from wmtp.training.progress import ProgressReport, describe

STATE = SimpleNamespace(is_world_process_zero=True, global_step=3, max_steps=10)


def test_a_log_entry_is_described_by_its_loss_and_the_cross_entropy_of_each_head():
    assert describe({"loss": 2.5, "ce_1": 2.0, "ce_2": 3.0, "grad_norm": 1.0}) == "loss 2.500, ce 2.000 3.000"
    assert describe({"eval_loss": 2.5, "eval_ce_1": 2.5}) == "validation: loss 2.500, ce 2.500"
    assert describe({"train_runtime": 3.0}) == ""


def test_on_a_terminal_a_progress_line_goes_to_stderr_and_nothing_to_stdout(capsys):
    report = ProgressReport(draws=True)
    report.on_train_begin(None, STATE, None)
    report.on_step_end(None, STATE, None)
    report.on_log(None, STATE, None, logs={"eval_loss": 2.5, "eval_ce_1": 2.5})
    report.on_log(None, STATE, None, logs={"loss": 1.5, "ce_1": 1.5})
    report.on_train_end(None, STATE, None)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "step 3: validation: loss 2.500, ce 2.500" in printed.err
    assert "3/10" in printed.err
    assert "loss 1.500, ce 1.500" in printed.err


def test_without_a_terminal_nothing_is_drawn(capsys, caplog):
    with caplog.at_level("INFO", logger="wmtp"):
        report = ProgressReport()
        report.on_train_begin(None, STATE, None)
        report.on_log(None, STATE, None, logs={"loss": 1.5, "ce_1": 1.5})
    assert caplog.messages == ["step 3 of 10: loss 1.500, ce 1.500"]
    assert capsys.readouterr().err == ""
