"""Writes the table of ``celray_writers.py`` by other programs, where they are installed.

``python make.py`` in an environment with pyspark, duckdb, and R (r-base-core, r-cran-data.table)
and LibreOffice (libreoffice-calc) beside it. The files are kept, so that no test needs any of them.
"""

import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))
from celray_writers import NAMES, ROWS

HERE = Path(__file__).parent
#: A locale, its usual separator (its code in LibreOffice), an encoding (its number there).
LOCALES = {"en-US": (44, 76), "de-DE": (59, 76), "fr-FR": (59, 1), "tr-TR": (59, 76)}

NS = 'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" \
xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" \
xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" \
xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0" \
xmlns:number="urn:oasis:names:tc:opendocument:xmlns:datastyle:1.0"'
STYLES = """<office:automatic-styles>
<number:number-style style:name="N1"><number:number number:decimal-places="2"
 number:min-decimal-places="2" number:min-integer-digits="1" number:grouping="true"/>
</number:number-style>
<number:date-style style:name="N2" number:automatic-order="true" number:format-source="language">
<number:day number:style="long"/><number:text>.</number:text><number:month number:style="long"/>
<number:text>.</number:text><number:year number:style="long"/></number:date-style>
<number:boolean-style style:name="N3"><number:boolean/></number:boolean-style>
<style:style style:name="c2" style:family="table-cell" style:data-style-name="N2"/>
<style:style style:name="c3" style:family="table-cell" style:data-style-name="N3"/>
<style:style style:name="c1" style:family="table-cell" style:data-style-name="N1"/>
</office:automatic-styles>"""


def cell(name: str, value: object) -> str:
    if value is None:
        return "<table:table-cell/>"
    if isinstance(value, bool):
        return (
            '<table:table-cell table:style-name="c3" office:value-type="boolean"'
            f' office:boolean-value="{str(value).lower()}"/>'
        )
    if isinstance(value, (int, float)):
        style = ' table:style-name="c1"' if name == "value" else ""
        return f'<table:table-cell{style} office:value-type="float" office:value="{value}"/>'
    if hasattr(value, "isoformat"):
        date = value.isoformat()
        return (
            '<table:table-cell table:style-name="c2" office:value-type="date"'
            f' office:date-value="{date}"/>'
        )
    lines = escape(str(value)).split("\n")
    text = "".join(f"<text:p>{line}</text:p>" for line in lines)
    return f'<table:table-cell office:value-type="string">{text}</table:table-cell>'


def libreoffice() -> None:
    rows = [dict(zip(NAMES, NAMES, strict=True)), *(dict(zip(NAMES, r, strict=True)) for r in ROWS)]
    body = "".join(
        "<table:table-row>"
        + "".join(cell(name, value) for name, value in row.items())
        + "</table:table-row>"
        for row in rows
    )
    sheet = (
        f'<?xml version="1.0" encoding="UTF-8"?><office:document {NS} office:version="1.3"'
        ' office:mimetype="application/vnd.oasis.opendocument.spreadsheet">'
        f'{STYLES}<office:body><office:spreadsheet><table:table table:name="t">{body}'
        "</table:table></office:spreadsheet></office:body></office:document>"
    )
    for locale, (separator, encoding) in LOCALES.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "user").mkdir()
            (folder / "user" / "registrymodifications.xcu").write_text(
                '<?xml version="1.0" encoding="UTF-8"?><oor:items'
                ' xmlns:oor="http://openoffice.org/2001/registry"><item'
                ' oor:path="/org.openoffice.Setup/L10N"><prop oor:name="ooSetupSystemLocale"'
                f' oor:op="fuse"><value>{locale}</value></prop></item></oor:items>'
            )
            (folder / "t.fods").write_text(sheet)
            subprocess.run(
                [str(shutil.which("soffice")), f"-env:UserInstallation=file://{folder}",
                 "--headless", "--convert-to",
                 f"csv:Text - txt - csv (StarCalc):{separator},34,{encoding}", "--outdir", name,
                 str(folder / "t.fods")], check=True,
            )  # fmt: skip
            shutil.copy(folder / "t.csv", HERE / f"libreoffice-{locale}.csv")


def spark() -> None:
    sql, t = import_module("pyspark.sql"), import_module("pyspark.sql.types")
    kinds = {
        "a": t.IntegerType(), "b": t.IntegerType(), "day": t.DateType(), "value": t.DoubleType(),
        "flag": t.BooleanType(),
    }  # fmt: skip
    schema = t.StructType([t.StructField(n, kinds.get(n, t.StringType())) for n in NAMES])
    session = sql.SparkSession.builder.master("local[1]").getOrCreate()
    frame = session.createDataFrame([tuple(row) for row in ROWS], schema).repartition(2)
    for name, options in {"spark": {}, "spark-gzip": {"compression": "gzip"}}.items():
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        frame.write.options(header=True, **options).csv(str(folder))
        for path in [*folder.iterdir()]:
            for number in range(2):
                start = f"part-{number:05}-"
                if start in path.name:  # else its name is another at each run
                    crc, end = path.name.startswith("."), path.name.partition(".csv")[2]
                    path.rename(folder / f"{'.' * crc}part-{number:05}.csv{end}")


def duckdb() -> None:
    db, pd = import_module("duckdb"), import_module("pandas")
    frame = pd.DataFrame(ROWS, columns=NAMES)
    frame["day"] = pd.to_datetime(frame["day"]).dt.date
    db.register("t", frame)
    db.execute("copy (select * from t) to ?", [str(HERE / "duckdb.csv")])


def main() -> None:
    subprocess.run([str(shutil.which("Rscript")), "make.R"], check=True, cwd=HERE)
    libreoffice()
    spark()
    duckdb()


if __name__ == "__main__":
    main()
