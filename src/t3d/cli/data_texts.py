"""The command ``t3d data texts``: any text or chat as records to train on."""

from dataclasses import dataclass

from t3d.cli.record_name import check_record_name
from t3d.errors import InputError, require_positive
from t3d.work.files import check_output_file


@dataclass(frozen=True, kw_only=True)
class DataTexts:
    """Write texts and chats as records to pretrain on further (t3d train --preset sft)."""

    input: tuple[str, ...]
    """.jsonl files with "text" or "messages" in each line, .txt files of one text each."""
    output: str
    """Parquet file to write."""
    model: str
    """Checkpoint whose tokenizer and token ids hold: folder, hub id or mini."""
    block_size: int = 8
    """The student's: blocks are filled to the end."""
    max_length: int = 512
    """Longer texts are cut into pieces of this many tokens; turns of chats that are longer are left out."""
    limit: int | None = None
    """At most this many texts and chats, the first ones."""

    def run(self) -> None:
        """Run the command."""
        from t3d.interchange.texts import read_texts, text_trajectories
        from t3d.models.loading import load_tokenizer
        from t3d.trajectory import is_without_plan, write_trajectories
        from t3d.work.progress import Progress

        require_positive(self, "block_size", "max_length", *([] if self.limit is None else ["limit"]))
        if self.max_length < 2 * self.block_size:
            problem = f"fewer tokens than two blocks of {self.block_size}"
            raise InputError("max_length", self.max_length, problem, "raise it, or lower block_size")
        if not self.input:
            raise InputError("input", None, "names no file", "give .jsonl or .txt files")
        check_output_file(self.output, *self.input, is_own=is_without_plan)
        check_record_name(self.output)
        rows = [row for path in self.input for row in read_texts(path)][: self.limit]
        ids = [identity for identity, _ in rows]
        if len(set(ids)) < len(ids):
            raise InputError("input", self.input, "two files of one name", "rename one: records are named so")
        loaded = load_tokenizer(self.model)
        records, num_turns = [], 0
        with Progress("texts", len(rows)) as bar:
            for identity, row in rows:
                records += text_trajectories(identity, row, loaded, self.block_size, self.max_length)
                num_turns += sum(message["role"] == "assistant" for message in row.get("messages", ()))
                bar.advance()
            if not records:
                problem = f"nothing is left of {len(rows)} texts"
                raise InputError("max_length", self.max_length, problem, "raise max_length")
        num_left_out = num_turns - sum(record.task == "chats" for record in records)
        left_out = f", {num_left_out} turns of chats left out as too long" if num_left_out else ""
        write_trajectories(self.output, records)
        print(f"{len(records)} records of {len(rows)} texts and chats in {self.output}{left_out}")
