//! How much memory lists keep while they are empty.

/// An empty list or table may keep room for this many entries.
pub(super) const FEW: usize = 4;

/// Appends to a list that usually has one entry, so that it does not allocate room for four.
pub(super) fn push<T>(list: &mut Vec<T>, entry: T) {
    if list.capacity() == 0 {
        list.reserve_exact(1);
    }
    list.push(entry);
}

/// Gives back the memory of an empty list that was longer before.
pub(super) fn trim<T>(list: &mut Vec<T>) {
    if list.capacity() > FEW && list.is_empty() {
        *list = Vec::new();
    }
}
