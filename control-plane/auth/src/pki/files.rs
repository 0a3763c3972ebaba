//! Key files: private and written atomically.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::{CertPair, Error};

/// No key or certificate of ours comes near this.
const MAX_FILE: u64 = 1 << 20;

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::File { path: path.to_owned(), source }
}

pub(super) fn make_dir(dir: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))
}

pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(at(path)(e)),
    };
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(at(path))?;
    Ok(Some(text))
}

/// Writes beside the file, makes it durable, and puts it in place.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    match fs::remove_file(beside) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(at(beside)(e)),
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside).map_err(at(beside))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at(beside))?;
    fs::rename(beside, path).map_err(at(path))?;
    if let Some(dir) = path.parent() {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))?;
    }
    Ok(())
}

/// `None` unless both files are there: half a pair is made anew.
pub(super) fn read_pair(dir: &Path, name: &str) -> Result<Option<CertPair>, Error> {
    let cert = read(&dir.join(format!("{name}.crt")))?;
    let key = read(&dir.join(format!("{name}.key")))?;
    Ok(cert.zip(key).map(|(cert_pem, key_pem)| CertPair { cert_pem, key_pem }))
}

pub(super) fn write_pair(dir: &Path, name: &str, pair: CertPair) -> Result<CertPair, Error> {
    write(&dir.join(format!("{name}.key")), &pair.key_pem)?;
    write(&dir.join(format!("{name}.crt")), &pair.cert_pem)?;
    Ok(pair)
}
