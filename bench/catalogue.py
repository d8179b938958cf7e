"""Write the table of known benchmarks into docs/explanation/benchmarks.md.

python bench/catalogue.py            # print it
python bench/catalogue.py --write    # after an update of inspect_evals, or of the catalogue
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tinker_officer._files import write_atomic
from tinker_officer.evals.catalogue import markdown


PAGE = Path(__file__).resolve().parent.parent / "docs/explanation/benchmarks.md"
BEGIN, END = "<!-- bench/catalogue.py writes from here -->", "<!-- to here -->"


def main() -> None:
    """Print the table, and write it into the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    found = markdown()
    print(found)
    if parser.parse_args().write:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        write_atomic(PAGE, f"{head}{BEGIN}\n{found}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
