//! Text with a checksum in its last line: a person can read the file, and nobody changes it by hand.

/// What the last line begins with.
const CRC: &str = "crc32 = ";

/// Adds the last line.
pub(crate) fn seal(body: &str) -> String {
    format!("{body}{CRC}\"{:08x}\"\n", crc32fast::hash(body.as_bytes()))
}

/// What was sealed.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn open(text: &str) -> Result<&str, String> {
    let (body, crc) = text.rsplit_once(CRC).ok_or("its checksum is missing")?;
    if crc == format!("\"{:08x}\"\n", crc32fast::hash(body.as_bytes())) {
        Ok(body)
    } else {
        Err("its checksum does not match".into())
    }
}
