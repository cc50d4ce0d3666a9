"""What the diagnostic protocol asks of a model, asked of a torch module by hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Observed:
    """A torch module with hidden states and their gradients, for ``diagnose`` and ``TrainingMonitor``.

    h_0 is what the first block is given, h_l what block l gives. Nothing of the module changes: it is run in evaluation mode and
    set back, no ``.grad`` is touched, the hooks are there only while it runs.

    Args:
        module: called with a batch's x.
        blocks: submodules of it in the order in which they run, each once a pass; of what a block is given and gives the first
            tensor is its state, (n, ...).
        loss: ``(output, y) -> `` the mean loss, a tensor of one element; cross-entropy by default.

    Raises:
        ValueError: no block, or one that is no part of the module.
        ImportError: there is no torch.

    Example::

        monitor.observe(epoch, Observed(net, net.blocks), x, y, accuracy)
    """

    def __init__(self, module: Any, blocks: Sequence[Any], loss: Callable[[Any, Any], Any] | None = None) -> None:
        from torch.nn.functional import cross_entropy

        self.module, self.blocks, self.loss = module, list(blocks), loss or cross_entropy
        if not self.blocks:
            raise ValueError("blocks must have at least one submodule, not none")
        parts = {id(part) for part in module.modules()}
        for at, block in enumerate(self.blocks):
            if id(block) not in parts:
                raise ValueError(f"blocks[{at}] must be a submodule of the module, not {type(block).__name__}")

    def hidden_states(self, x: Any) -> list[Array]:
        """h_0..h_L as arrays, each (n, ...)."""
        import torch

        with torch.no_grad(), self._evaluating():
            return [_array(state) for state in self._run(x)[1]]

    def hidden_gradients(self, x: Any, y: Any) -> list[Array]:
        """The gradients of the mean loss by h_0..h_L; zeros where the loss does not depend on a state."""
        import torch

        with torch.enable_grad(), self._evaluating():
            output, states = self._run(x)
            found = torch.autograd.grad(self._loss(output, y), states, allow_unused=True)
        return [np.zeros(tuple(h.shape)) if g is None else _array(g) for h, g in zip(states, found, strict=True)]

    def gradient(self, x: Any, y: Any) -> Array:
        """The gradient of the mean loss by all trainable weights of the blocks, (P,)."""
        import torch

        weights = list(dict.fromkeys(w for block in self.blocks for w in block.parameters() if w.requires_grad))
        if not weights:
            raise ValueError("blocks must have weights with requires_grad, not none")
        with torch.enable_grad(), self._evaluating():
            found = torch.autograd.grad(self._loss(self._run(x)[0], y), weights, allow_unused=True)
        parts = [np.zeros(w.numel()) if g is None else _array(g).ravel() for w, g in zip(weights, found, strict=True)]
        return np.concatenate(parts)

    def _run(self, x: Any) -> tuple[Any, list[Any]]:
        """The module's output and the states, each of which the loss can be differentiated by."""
        import torch

        states: list[Any] = []
        seen: list[int] = []

        def tracked(value: Any) -> Any:
            """A state that autograd knows: one that depends on no weight has to be made a leaf."""
            tensor = _first(value)
            if torch.is_grad_enabled() and not tensor.requires_grad:
                tensor = tensor.detach().requires_grad_()
            states.append(tensor)
            return tensor

        def before(block: Any, given: tuple[Any, ...]) -> Any:
            tensor = tracked(given)
            return tuple(tensor if one is _first(given) else one for one in given)

        def after(at: int) -> Callable[[Any, Any, Any], Any]:
            def hook(block: Any, given: Any, made: Any) -> Any:
                seen.append(at)
                tensor = tracked(made)
                if isinstance(made, (tuple, list)):
                    return type(made)(tensor if one is _first(made) else one for one in made)
                return tensor

            return hook

        hooks = [self.blocks[0].register_forward_pre_hook(before)]
        hooks += [block.register_forward_hook(after(at)) for at, block in enumerate(self.blocks)]
        try:
            output = self.module(_tensor(x, self.module))
        finally:
            for hook in hooks:
                hook.remove()
        if seen != list(range(len(self.blocks))):
            raise ValueError(f"blocks must each run once a pass, in their order, not as {seen}")
        return output, states

    def _loss(self, output: Any, y: Any) -> Any:
        loss = self.loss(output, _tensor(y, self.module, floating=False))
        if loss.numel() != 1:
            raise ValueError(f"loss must give the mean over the samples, one element, not {tuple(loss.shape)}")
        return loss

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Dropout off and batch statistics still, in every submodule; and back."""
        modes = [(part, part.training) for part in self.module.modules()]
        self.module.eval()
        try:
            yield
        finally:
            for part, mode in modes:
                part.training = mode


def _first(value: Any) -> Any:
    """The first tensor of what a block is given or gives.

    Raises:
        ValueError: there is none.
    """
    import torch

    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, (tuple, list)):
        for one in value:
            if isinstance(one, torch.Tensor):
                return one
    raise ValueError(f"blocks must take and give tensors, not {type(value).__name__}")


def _tensor(value: Any, module: Any, *, floating: bool = True) -> Any:
    """A tensor where the module is; of arrays, floats in the module's own precision."""
    import torch

    own = next(iter(module.parameters()), None)
    tensor = torch.as_tensor(value)
    if own is None:
        return tensor
    changes_type = floating and tensor.is_floating_point() and not isinstance(value, torch.Tensor)
    return tensor.to(device=own.device, dtype=own.dtype if changes_type else tensor.dtype)


def _array(tensor: Any) -> Array:
    """A copy as a numpy array; bfloat16, which numpy has not, as float32."""
    made: Array = tensor.detach().cpu().float().numpy() if tensor.dtype.itemsize < 4 else tensor.detach().cpu().numpy()
    return made
