//! Compresses the table of descriptions, which is large, read rarely, and embedded in the library.

use std::io::Write;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let table = "src/openapi/descriptions.txt";
    println!("cargo::rerun-if-changed={table}");
    let folder = std::env::var_os("OUT_DIR").ok_or_else(|| std::io::Error::other("cargo sets OUT_DIR"))?;
    let file = std::fs::File::create(Path::new(&folder).join("descriptions.gz"))?;
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::best());
    gzip.write_all(&std::fs::read(table)?)?;
    gzip.finish()?.sync_all()
}
