//! Fixed-size on-disk structures, stated once as a table of offsets.
//!
//! [`structure!`] turns such a table into a Rust structure of native integers with `decode` and
//! `encode`, and lets the compiler check that every field lies at the stated offset and that the
//! whole has the stated size.

/// An integer or array of integers with a fixed place on disk.
pub(crate) trait Field: Sized {
    /// Size on disk in bytes.
    const SIZE: usize;
    /// Reads little-endian bytes; missing bytes read as zero.
    fn little(bytes: &[u8]) -> Self;
    /// Reads big-endian bytes; missing bytes read as zero.
    fn big(bytes: &[u8]) -> Self;
    /// Writes little-endian bytes into exactly [`Field::SIZE`] bytes.
    fn put_little(&self, bytes: &mut [u8]);
    /// Writes big-endian bytes into exactly [`Field::SIZE`] bytes.
    fn put_big(&self, bytes: &mut [u8]);
}

macro_rules! integer_field {
    ($($type:ident),*) => {$(
        impl Field for $type {
            const SIZE: usize = size_of::<$type>();
            fn little(bytes: &[u8]) -> Self {
                bytes.try_into().map_or(0, $type::from_le_bytes)
            }
            fn big(bytes: &[u8]) -> Self {
                bytes.try_into().map_or(0, $type::from_be_bytes)
            }
            fn put_little(&self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }
            fn put_big(&self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_be_bytes());
            }
        }
    )*};
}

integer_field!(u8, u16, u32, u64);

impl<T: Field + Copy + Default, const N: usize> Field for [T; N] {
    const SIZE: usize = T::SIZE * N;

    fn little(bytes: &[u8]) -> Self {
        let mut values = [T::default(); N];
        for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(T::SIZE)) {
            *value = T::little(bytes);
        }
        values
    }

    fn big(bytes: &[u8]) -> Self {
        let mut values = [T::default(); N];
        for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(T::SIZE)) {
            *value = T::big(bytes);
        }
        values
    }

    fn put_little(&self, bytes: &mut [u8]) {
        for (value, bytes) in self.iter().zip(bytes.chunks_exact_mut(T::SIZE)) {
            value.put_little(bytes);
        }
    }

    fn put_big(&self, bytes: &mut [u8]) {
        for (value, bytes) in self.iter().zip(bytes.chunks_exact_mut(T::SIZE)) {
            value.put_big(bytes);
        }
    }
}

/// `structure! { /// docs  Name, size, little|big { offset field: type, … } }`
macro_rules! structure {
    (@get little) => { $crate::ext4::structure::Field::little };
    (@get big) => { $crate::ext4::structure::Field::big };
    (@put little) => { $crate::ext4::structure::Field::put_little };
    (@put big) => { $crate::ext4::structure::Field::put_big };
    (
        $(#[$meta:meta])*
        $name:ident, $size:literal, $order:tt {
            $($(#[$field_meta:meta])* $offset:literal $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: $type,)*
        }

        impl $name {
            /// Size on disk in bytes.
            pub(crate) const SIZE: usize = $size;

            /// Reads the structure from the start of `bytes`; `None` where these are too few.
            pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
                let bytes: &[u8; $size] = bytes.first_chunk()?;
                Some(Self::from_array(bytes))
            }

            /// A structure of which every byte is zero.
            pub(crate) fn zeroed() -> Self {
                Self::from_array(&[0; $size])
            }

            fn from_array(bytes: &[u8; $size]) -> Self {
                Self {
                    $($field: structure!(@get $order)(
                        &bytes[$offset..$offset + <$type as $crate::ext4::structure::Field>::SIZE],
                    ),)*
                }
            }

            /// The structure's bytes on disk.
            pub(crate) fn encode(&self) -> [u8; $size] {
                let mut bytes = [0; $size];
                $(structure!(@put $order)(
                    &self.$field,
                    &mut bytes[$offset..$offset + <$type as $crate::ext4::structure::Field>::SIZE],
                );)*
                bytes
            }
        }

        const _: () = {
            let mut at = 0;
            $(
                assert!(at == $offset, "a field is not at its offset");
                at += <$type as $crate::ext4::structure::Field>::SIZE;
            )*
            assert!(at == $size, "a structure has not its size");
        };
    };
}

pub(crate) use structure;
