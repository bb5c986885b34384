//! The domain's locks. With the feature `interleavings` they are ones at which a test decides whose turn
//! it is; see `tests/interleavings.rs` beside this file.

#[cfg(feature = "interleavings")]
pub(super) use self::explored::{Mutex, MutexGuard, RwLock};
#[cfg(not(feature = "interleavings"))]
pub(super) use parking_lot::{Mutex, MutexGuard, RwLock};

#[cfg(feature = "interleavings")]
mod explored {
    use std::sync::PoisonError;

    pub(crate) use shuttle::sync::MutexGuard;
    use shuttle::sync::{RwLockReadGuard, RwLockWriteGuard};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
