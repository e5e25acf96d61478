//! What goes wrong in the file system, and the error number that says it.

use fuser::Errno;
/// Why a call of [`crate::fs::Fs`] failed. Details were logged where they were known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    /// No entry of this name.
    #[error("no such file or directory")]
    NotFound,
    /// The inode's snapshot is gone.
    #[error("its snapshot is gone")]
    Stale,
    /// A directory is needed.
    #[error("not a directory")]
    NotADirectory,
    /// Anything but a directory is needed.
    #[error("is a directory")]
    IsADirectory,
    /// The call has no meaning for this kind of file.
    #[error("invalid argument")]
    Invalid,
    /// Longer than any name.
    #[error("name too long")]
    NameTooLong,
    /// No extended attribute of this name.
    #[error("no such attribute")]
    NoAttribute,
    /// The caller's buffer is too small.
    #[error("the buffer is too small")]
    BufferTooSmall,
    /// A position behind the end of the file.
    #[error("no such position")]
    BeyondEnd,
    /// The repository cannot be read here, and may be later.
    #[error("the repository cannot be read")]
    Io,
    /// What is here is damaged or gone.
    #[error("the repository is damaged")]
    Damaged,
}

impl From<FsError> for Errno {
    fn from(error: FsError) -> Errno {
        match error {
            FsError::NotFound => Errno::ENOENT,
            FsError::Stale => Errno::ESTALE,
            FsError::NotADirectory => Errno::ENOTDIR,
            FsError::IsADirectory => Errno::EISDIR,
            FsError::Invalid => Errno::EINVAL,
            FsError::NameTooLong => Errno::ENAMETOOLONG,
            FsError::NoAttribute => Errno::NO_XATTR,
            FsError::BufferTooSmall => Errno::ERANGE,
            FsError::BeyondEnd => Errno::ENXIO,
            FsError::Io | FsError::Damaged => Errno::EIO,
        }
    }
}
