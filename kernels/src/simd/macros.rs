//! How levels put words together: of intrinsics, and of words on shorter registers.

/// Words that are made of intrinsics. The level's type proves that the processor has them.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! words {
    ($(fn $name:ident $(<$(const $c:ident: $ct:ty),*>)? ($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block)*) => {$(
        #[inline(always)]
        fn $name $(<$(const $c: $ct),*>)? (self, $($arg: $ty),*) $(-> $ret)? {
            // SAFETY: a value of the level's type proves that the processor has its instructions (`new`), and the
            // loads and stores go through references to arrays of what they access, at any alignment.
            unsafe { $body }
        }
    )*};
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use words;

/// The words on sixteen rows, for levels that hold them as two registers of eight.
macro_rules! rows_of_two_registers {
    () => {
        type RowInts = [Self::Ints; 2];
        type RowFloats = [Self::Floats; 2];

        #[inline(always)]
        fn splat_rows(self, a: i32) -> Self::RowInts {
            [self.splat_int(a); 2]
        }
        #[inline(always)]
        fn row_ints(self, from: &[i32; 16]) -> Self::RowInts {
            let from = from.as_chunks::<8>().0;
            [self.ints(&from[0]), self.ints(&from[1])]
        }
        #[inline(always)]
        fn shl_rows<const SHIFT: i32>(self, a: Self::RowInts) -> Self::RowInts {
            [self.shl_ints::<SHIFT>(a[0]), self.shl_ints::<SHIFT>(a[1])]
        }
        #[inline(always)]
        fn add_rows(self, a: Self::RowInts, b: Self::RowInts) -> Self::RowInts {
            [self.add_ints(a[0], b[0]), self.add_ints(a[1], b[1])]
        }
        #[inline(always)]
        fn sub_rows(self, a: Self::RowInts, b: Self::RowInts) -> Self::RowInts {
            [self.sub_ints(a[0], b[0]), self.sub_ints(a[1], b[1])]
        }
        #[inline(always)]
        fn add_pairs(self, to: Self::RowInts, w: &[[i16; 2]; 16], x: &[i16; 2]) -> Self::RowInts {
            let (x, w) = (self.splat_pair(*x), w.as_flattened().as_chunks::<16>().0);
            [
                self.add_dot_shorts(to[0], self.shorts(&w[0]), x),
                self.add_dot_shorts(to[1], self.shorts(&w[1]), x),
            ]
        }
        #[inline(always)]
        fn row_ints_to_floats(self, a: Self::RowInts) -> Self::RowFloats {
            [self.to_floats(a[0]), self.to_floats(a[1])]
        }
        #[inline(always)]
        fn row_floats(self, from: &[f32; 16]) -> Self::RowFloats {
            let from = from.as_chunks::<8>().0;
            [self.floats(&from[0]), self.floats(&from[1])]
        }
        #[inline(always)]
        fn row_halves(self, bits: &[u16; 16]) -> Self::RowFloats {
            let bits = bits.as_chunks::<8>().0;
            [self.halves_of(&bits[0]), self.halves_of(&bits[1])]
        }
        #[inline(always)]
        fn row_brains(self, bits: &[u16; 16]) -> Self::RowFloats {
            let bytes: [[u8; 16]; 2] = bytemuck::cast(bits.map(u16::to_le));
            [self.brains(&bytes[0]), self.brains(&bytes[1])]
        }
        #[inline(always)]
        fn row_code_floats(self, from: &[i8; 16]) -> Self::RowFloats {
            let from = from.as_chunks::<8>().0;
            [self.code_floats(&from[0]), self.code_floats(&from[1])]
        }
        #[inline(always)]
        fn store_row_floats(self, a: Self::RowFloats, to: &mut [f32; 16]) {
            let to = to.as_chunks_mut::<8>().0;
            self.store(a[0], &mut to[0]);
            self.store(a[1], &mut to[1]);
        }
        #[inline(always)]
        fn splat_row_floats(self, a: f32) -> Self::RowFloats {
            [self.splat(a); 2]
        }
        #[inline(always)]
        fn add_row_floats(self, a: Self::RowFloats, b: Self::RowFloats) -> Self::RowFloats {
            [self.add(a[0], b[0]), self.add(a[1], b[1])]
        }
        #[inline(always)]
        fn mul_row_floats(self, a: Self::RowFloats, b: Self::RowFloats) -> Self::RowFloats {
            [self.mul(a[0], b[0]), self.mul(a[1], b[1])]
        }
        #[inline(always)]
        fn fma_row_floats(
            self,
            a: Self::RowFloats,
            b: Self::RowFloats,
            c: Self::RowFloats,
        ) -> Self::RowFloats {
            [self.fma(a[0], b[0], c[0]), self.fma(a[1], b[1], c[1])]
        }
        #[inline(always)]
        fn fold_row_floats(self, a: Self::RowFloats) -> Self::Floats {
            self.add(a[0], a[1])
        }
    };
}
pub(super) use rows_of_two_registers;
