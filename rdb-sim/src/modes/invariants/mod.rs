//! What must hold in every world, one file each.

mod done_where_asked;
mod frontier_is_everywhere;
mod lag_is_honest;
mod left_behind_is_kept;
mod linearizable;
mod never_weaker;
mod nothing_lost;
mod one_base;
mod one_mode;
mod reads_never_go_back;
mod replicas_are_alike;
mod sessions_see_what_they_saw;

pub(super) use lag_is_honest::lag_is_honest;
