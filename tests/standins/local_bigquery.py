"""Makes local-bigquery 0.4.0 run on Python 3.11, in whose environment this is run after its installation.

The package asks for 3.13, but two spots only use syntax of 3.12: a type parameter list, and quotes of the same kind
inside an f-string. Its DuckDB extensions come as wheels and are unpacked here, so that a start needs no network.
"""

import pathlib
import re
import sysconfig

package = pathlib.Path(sysconfig.get_paths()["purelib"]) / "local_bigquery"

metadata = package / "catalog" / "metadata.py"
text = metadata.read_text()
if "[R: Resource]" in text:
    text = re.sub(r"(def \w+)\[R: Resource\]", r"\1", text)
    head, _, rest = text.partition("\ndef ")
    text = f"{head}\nfrom typing import TypeVar\n\nR = TypeVar('R', bound=Resource)\n\n\ndef {rest}"
    metadata.write_text(text)

results = package / "engine" / "results.py"
text = results.read_text()
nested = """f"THEN error('{message.replace("'", "''")}') ELSE {expression} END\""""
if nested in text:
    text = text.replace(nested, '''"THEN error('" + message.replace("'", "''") + f"') ELSE {expression} END"''')
    results.write_text(text)

from duckdb_extensions import import_extension  # noqa: E402

for extension in ("icu", "ducklake", "spatial"):
    import_extension(extension)
