//! The marker of types that may be copied to and from map memory.

/// A `repr(C)` type of integers without padding, for which any bit pattern is valid.
///
/// Implemented only by [`plain!`](crate::plain::plain), which checks the size; user space relies on it when it
/// tells the map library that a type is plain memory.
pub trait Plain: Copy + 'static {}

impl Plain for u8 {}
impl Plain for u32 {}
impl Plain for u64 {}

/// Implements [`Plain`] and proves at compile time that the size is what the fields add up to.
macro_rules! plain {
    ($type:ty, $size:expr) => {
        impl $crate::Plain for $type {}
        const _: () = assert!(core::mem::size_of::<$type>() == $size, "padding or a changed layout");
    };
}
pub(crate) use plain;
