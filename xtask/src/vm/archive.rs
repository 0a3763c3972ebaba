//! The "newc" form of cpio archives, which the kernel unpacks as its first file system.

/// An archive of folders and of programs or data, all root's; every file may be executed.
pub(crate) fn newc(folders: &[&str], files: &[(String, Vec<u8>)]) -> Vec<u8> {
    const FOLDER: u32 = 0o040_755;
    const FILE: u32 = 0o100_755;
    let mut archive = Vec::new();
    let mut inode = 0;
    let mut add = |name: &str, mode: u32, content: &[u8]| {
        inode += 1;
        entry(&mut archive, inode, name, mode, content);
    };
    for folder in folders {
        add(folder, FOLDER, &[]);
    }
    for (name, content) in files {
        add(name, FILE, content);
    }
    add("TRAILER!!!", 0, &[]);
    archive
}

fn entry(archive: &mut Vec<u8>, inode: usize, name: &str, mode: u32, content: &[u8]) {
    archive.extend(b"070701");
    // Inode, mode, user, group, links, time, size, device (2), device of a special file (2), length of the name, sum.
    let fields = [inode, mode as usize, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes());
    archive.push(0);
    pad(archive);
    archive.extend(content);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_padding_are_as_the_kernel_reads_them() {
        let archive = newc(&["dev"], &[("init".to_owned(), b"abcde".to_vec())]);
        let text = String::from_utf8(archive.clone()).expect("plain text");
        assert_eq!(archive.len() % 4, 0);
        // Header (110) and "dev\0" (4) are 114 bytes, padded to 116.
        assert_eq!(&text[..14], "07070100000001");
        assert_eq!(&text[116..122], "070701");
        assert_eq!(&text[116 + 54..116 + 62], "00000005", "the size of init");
        assert!(text.contains(concat!("init\0\0", "abcde\0\0\0", "070701")), "{text:?}");
        assert!(text.contains("TRAILER!!!\0"));
    }
}
