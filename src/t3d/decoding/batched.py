"""Batched block-diffusion decoding with cached keys and values.

Every forward has one active block per row. A row whose block still has masks takes a denoising
step; a row whose block is finished commits it (its clean keys and values are written) and moves to
its next block. Rows never wait for each other. R rows, S block size, N slots.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel

from t3d.counter_rng import counter_uniform, stable_key
from t3d.decoding.cache import SlotCache
from t3d.decoding.completion import Completion, DecodeRequest, check_request, visible_length
from t3d.decoding.params import DecodeParams
from t3d.decoding.sampling import ORDER_STREAM, TOKEN_STREAM, candidate_tokens
from t3d.decoding.transfer import transfer_mask
from t3d.errors import InputError, require_unique_ids
from t3d.models.forward import block_forward
from t3d.models.masks import block_causal_mask
from t3d.schedule import num_transfer_tokens


@dataclass(slots=True)
class _Rows:
    """State of the rows still decoding; every tensor's first axis is the row."""

    request: list[DecodeRequest]
    key_R: Int[Tensor, "R"]
    prompt_length_R: Int[Tensor, "R"]
    ids_RN: Int[Tensor, "R N"]
    steps_RN: Int[Tensor, "R N"]
    undecided_RN: Bool[Tensor, "R N"]
    block_start_R: Int[Tensor, "R"]
    step_in_block_R: Int[Tensor, "R"]
    denoising_steps_R: Int[Tensor, "R"]
    commits_R: Int[Tensor, "R"]

    def keep(self, rows: Int[Tensor, "R"]) -> None:
        """Drop all rows but these."""
        self.request = [self.request[row] for row in rows.tolist()]
        for field in self.__dataclass_fields__:
            if field != "request":
                setattr(self, field, getattr(self, field)[rows])


def decode(
    model: PreTrainedModel,
    requests: Sequence[DecodeRequest],
    params: DecodeParams,
    *,
    mask_token_id: int,
    stop_token_ids: Sequence[int],
    batch_size: int = 256,
    on_finish: Callable[[Completion], None] | None = None,
) -> list[Completion]:
    """Decode requests in batches; results in request order.

    ``on_finish`` is called for each completion as soon as it is there. Raises
    :class:`~t3d.errors.InputError` for a repeated id, an empty prompt or one that cannot fit.
    """
    if batch_size < 1:
        raise InputError("batch_size", batch_size, "not positive", "use 1 or more")
    for request in requests:
        check_request(request, params, model.config.max_position_embeddings)
    require_unique_ids((request.id for request in requests), "requests")
    done: dict[str, Completion] = {}
    for first in range(0, len(requests), batch_size):
        batch = requests[first : first + batch_size]
        for completion in _BatchDecoder(model, batch, params, mask_token_id, stop_token_ids).run():
            done[completion.id] = completion
            if on_finish is not None:
                on_finish(completion)
    return [done[request.id] for request in requests]


class _BatchDecoder:
    """Decodes one batch to the end."""

    def __init__(
        self,
        model: PreTrainedModel,
        requests: Sequence[DecodeRequest],
        params: DecodeParams,
        mask_token_id: int,
        stop_token_ids: Sequence[int],
    ) -> None:
        self.model, self.params = model, params
        self.mask_token_id, self.stop_token_ids = mask_token_id, stop_token_ids
        self.device = next(model.parameters()).device
        self.columns_S = torch.arange(params.block_size, device=self.device)
        # A planned count after the last step: no block gets there with a mask left.
        schedule = [*num_transfer_tokens(params.block_size, params.steps_per_block), 0]
        self.schedule = torch.tensor(schedule, device=self.device)
        self.rows = self._admit(requests)
        num_slots = self.rows.ids_RN.shape[1]
        dtype = next(model.parameters()).dtype
        self.cache = SlotCache(model.config, len(requests), num_slots, dtype, self.device)

    @torch.no_grad()
    def run(self):
        """Yield completions as rows finish."""
        self._prefill()
        while self.rows.request:
            self._forward()
            yield from self._finish_rows()

    def _admit(self, requests: Sequence[DecodeRequest]) -> _Rows:
        size = self.params.block_size
        lengths = [len(request.prompt_ids) for request in requests]
        num_slots = -(-(max(lengths) + self.params.max_new_tokens) // size) * size
        ids_RN = torch.full((len(requests), num_slots), self.mask_token_id, dtype=torch.int64)
        for row, request in enumerate(requests):
            ids_RN[row, : lengths[row]] = torch.tensor(request.prompt_ids)
        prompt_length_R = torch.tensor(lengths)
        zeros_R = torch.zeros_like(prompt_length_R)
        rows = _Rows(
            request=list(requests),
            key_R=torch.tensor([stable_key(request.id) for request in requests]),
            prompt_length_R=prompt_length_R,
            ids_RN=ids_RN,
            steps_RN=torch.zeros_like(ids_RN),
            undecided_RN=torch.arange(num_slots)[None] >= prompt_length_R[:, None],
            block_start_R=prompt_length_R // size * size,
            step_in_block_R=zeros_R,
            denoising_steps_R=zeros_R.clone(),
            commits_R=zeros_R.clone(),
        )
        for field in _Rows.__dataclass_fields__:
            if field != "request":
                setattr(rows, field, getattr(rows, field).to(self.device))
        return rows

    def _run_model(self, position_RQ: Tensor, visible_length_R: Tensor, logit_positions: Tensor) -> Tensor:
        """Forward of the tokens at these positions; keys up to each row's visible length."""
        key_length = int(visible_length_R.max())
        key_position_RN = torch.arange(key_length, device=self.device).expand(len(position_RQ), -1)
        mask_RQN = block_causal_mask(
            position_RQ, key_position_RN, key_position_RN < visible_length_R[:, None], self.params.block_size
        )
        self.cache.place(position_RQ, key_length)
        ids_RQ = self.rows.ids_RN.gather(1, position_RQ)
        return block_forward(
            self.model, ids_RQ, position_RQ, mask_RQN, logit_positions=logit_positions, cache=self.cache
        )

    def _prefill(self) -> None:
        """Write keys and values of all whole prompt blocks."""
        longest = int(self.rows.block_start_R.max())
        if longest == 0:
            return
        position_RQ = torch.arange(longest, device=self.device).expand(len(self.rows.request), -1)
        # Tokens past a row's own prompt blocks are written too, and overwritten by its first block.
        nowhere = torch.empty(0, dtype=torch.int64, device=self.device)
        self._run_model(position_RQ, self.rows.block_start_R.clamp(min=1), nowhere)

    def _forward(self) -> None:
        """One forward: a denoising step or a commit for every row."""
        rows, params = self.rows, self.params
        position_RS = rows.block_start_R[:, None] + self.columns_S
        noise_mask_RS = rows.undecided_RN.gather(1, position_RS)
        denoises_R = noise_mask_RS.any(1)
        rows.denoising_steps_R = rows.denoising_steps_R + denoises_R
        masked = noise_mask_RS.flatten().nonzero()[:, 0]
        logits_MV = self._run_model(position_RS, rows.block_start_R + params.block_size, masked)
        noise = (params.seed, rows.key_R[:, None], position_RS, rows.denoising_steps_R[:, None])
        uniform_M = counter_uniform(*noise, TOKEN_STREAM)[noise_mask_RS]
        token_M, confidence_M = candidate_tokens(logits_MV, uniform_M, params, self.mask_token_id)
        confidence_RS = confidence_M.new_zeros(position_RS.shape).masked_scatter(noise_mask_RS, confidence_M)
        token_RS = token_M.new_zeros(position_RS.shape).masked_scatter(noise_mask_RS, token_M)
        planned_R = self.schedule[rows.step_in_block_R]
        order_RS = counter_uniform(*noise, ORDER_STREAM)
        transfer_RS = transfer_mask(confidence_RS, noise_mask_RS, planned_R, order_RS, params)
        ids_RS = torch.where(transfer_RS, token_RS, rows.ids_RN.gather(1, position_RS))
        steps_RS = torch.where(
            transfer_RS, rows.denoising_steps_R[:, None], rows.steps_RN.gather(1, position_RS)
        )
        rows.ids_RN.scatter_(1, position_RS, ids_RS)
        rows.steps_RN.scatter_(1, position_RS, steps_RS)
        rows.undecided_RN.scatter_(1, position_RS, noise_mask_RS & ~transfer_RS)
        # Rows that entered without a mask have committed their block: on to the next one.
        rows.commits_R = rows.commits_R + ~denoises_R
        rows.block_start_R = torch.where(
            denoises_R, rows.block_start_R, rows.block_start_R + params.block_size
        )
        rows.step_in_block_R = torch.where(denoises_R, rows.step_in_block_R + 1, 0)

    def _finish_rows(self) -> list[Completion]:
        """Completions of the rows whose finished block ends their response; drops these rows."""
        rows, size = self.rows, self.params.block_size
        position_RS = rows.block_start_R[:, None] + self.columns_S
        is_clean_R = ~rows.undecided_RN.gather(1, position_RS).any(1)
        is_response_RS = position_RS >= rows.prompt_length_R[:, None]
        block_ids_RS = rows.ids_RN.gather(1, position_RS)
        stops = torch.tensor(list(self.stop_token_ids), device=self.device)
        has_stop_R = (torch.isin(block_ids_RS, stops) & is_response_RS).any(1)
        end_R = rows.block_start_R + size
        is_full_R = end_R - rows.prompt_length_R >= self.params.max_new_tokens
        finished_R = is_clean_R & (has_stop_R | is_full_R)
        if not finished_R.any():
            return []
        completions = [self._completion(row) for row in finished_R.nonzero()[:, 0].tolist()]
        kept = (~finished_R).nonzero()[:, 0]
        rows.keep(kept)
        self.cache.keep_rows(kept)
        return completions

    def _completion(self, row: int) -> Completion:
        rows = self.rows
        request = rows.request[row]
        start, end = len(request.prompt_ids), int(rows.block_start_R[row]) + self.params.block_size
        response = tuple(rows.ids_RN[row, start:end].tolist())
        length, reason = visible_length(response, self.stop_token_ids, self.params.max_new_tokens)
        return Completion(
            id=request.id,
            prompt_ids=request.prompt_ids,
            response_ids=response,
            step_map=tuple(rows.steps_RN[row, start:end].tolist()),
            visible_length=length,
            finish_reason=reason,
            num_denoising_steps=int(rows.denoising_steps_R[row]),
            num_commit_forwards=int(rows.commits_R[row]),
        )
