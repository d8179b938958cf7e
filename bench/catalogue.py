"""Write the table of known benchmarks into docs/explanation/benchmarks.md.

python bench/catalogue.py            # print it
python bench/catalogue.py --write    # after an update of inspect_evals, or of the catalogue
"""

from __future__ import annotations

import argparse

import _page

from tinker_officer.evals.catalogue import markdown


def main() -> None:
    """Print the table, and write it into the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    found = markdown()
    print(found)
    if asked.write:
        _page.write("benchmarks", "catalogue", found)


if __name__ == "__main__":
    main()
