//! How much room lists keep while they are empty.

/// Entries that a list or a table may keep room for while there are none.
pub(super) const FEW: usize = 4;

/// Appends to a list that mostly has one entry, and takes no memory for four because of it.
pub(super) fn push<T>(list: &mut Vec<T>, entry: T) {
    if list.capacity() == 0 {
        list.reserve_exact(1);
    }
    list.push(entry);
}

/// Gives back the memory of an empty list that has been longer.
pub(super) fn trim<T>(list: &mut Vec<T>) {
    if list.is_empty() && list.capacity() > FEW {
        *list = Vec::new();
    }
}
