import pytest
import torch

from wmtp.authoring.drafting.expressions import Cut, Expression, Joined, Stored, Turned, Untraceable
from wmtp.authoring.drafting.recording import Recorded

VALUES = torch.arange(24 * 6).view(24, 6)


def evaluated(expression: Expression) -> torch.Tensor:
    match expression:
        case Stored():
            return VALUES
        case Joined():
            join = torch.stack if expression.is_new else torch.cat
            return join([evaluated(part) for part in expression.parts], dim=expression.dim)
        case Cut():
            return evaluated(expression.of).narrow(expression.dim, expression.start, expression.end - expression.start)
        case Turned():
            order = [axis for group in expression.after for axis in group]
            return evaluated(expression.of).reshape(expression.sizes).permute(order).reshape(expression.shape)
    raise AssertionError(expression)


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x.transpose(0, 1).contiguous(),
        lambda x: x.T.reshape(6, 4, 6).permute(2, 0, 1)[:, :3].flatten(0, 1),
        lambda x: x.view(4, 2, 3, 6).transpose(1, 2).reshape(24, 6),  # rotary rows
        lambda x: x.reshape(12, 2, 6).transpose(1, 2).reshape(24, 6).chunk(2, dim=0)[1],
        lambda x: x.unflatten(0, (-1, 2))[:, :1],
        lambda x: x.unsqueeze(1).transpose(0, 2).squeeze(1),
        lambda x: torch.stack([x, x], dim=-1)[3],
        lambda x: torch.cat(x.split([20, 4], dim=0)[::-1], dim=0),
        lambda x: x[-1],
        lambda x: x.unbind(1)[2],
        lambda x: x.view(24, 1, 6, 1).transpose(0, 3).squeeze(0),
        lambda x: x.narrow(-1, 2, 3)[4:10, ...],
    ],
)
def test_what_is_done_to_a_tensor_without_values_is_what_would_be_done_to_its_values(act):
    recorded = act(Recorded.of(Stored("x", (24, 6)), torch.float32))
    assert torch.equal(evaluated(recorded.expression), act(VALUES))
    assert recorded.shape == act(VALUES).shape


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda x: x + 1, "add"),
        (lambda x: x[::2], "a range with steps"),
        (lambda x: x[[0, 3]], "an index that is neither a number nor a range"),
        (lambda x: torch.cat([x, torch.zeros(1, 6)]), "values that are not stored"),
        (lambda x: x.T.reshape(4, 36), "a reshape from [6, 24] to [4, 36], across axes"),
    ],
)
def test_what_no_operation_can_say_is_refused_by_what_it_is(act, said):
    with pytest.raises(Untraceable) as caught:
        act(Recorded.of(Stored("x", (24, 6)), torch.float32))
    assert said in str(caught.value)


def test_doing_and_undoing_leaves_the_stored_tensor():
    stored = Stored("x", (24, 6))
    assert Recorded.of(stored, torch.float32).T.T.view(2, 12, 6).flatten(0, 1).expression == stored
