//! Lays rows out as columns for people.

use console::{measure_text_width, truncate_str};

/// Columns between two cells.
const GAP: usize = 2;
/// The narrowest that a last column is cut to; below that the terminal wraps.
const LAST_MIN: usize = 10;

/// `rows` under `head`, each cell as wide as its column's widest. The last column is cut where the line would be wider
/// than `width`; nothing is cut where there is no width.
pub fn layout<const N: usize>(head: [&str; N], rows: &[[String; N]], width: Option<usize>) -> String {
    let head = head.map(str::to_owned);
    let lines = || std::iter::once(&head).chain(rows);
    let mut widths = [0; N];
    for line in lines() {
        for (widest, cell) in widths.iter_mut().zip(line) {
            *widest = (*widest).max(measure_text_width(cell));
        }
    }
    let before: usize = widths.iter().take(N.saturating_sub(1)).map(|width| width + GAP).sum();
    let last_max = width.map(|width| width.saturating_sub(before).max(LAST_MIN));
    let mut out = String::new();
    for line in lines() {
        let mut text = String::new();
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            if column + 1 == N {
                text.push_str(&last_max.map_or_else(|| cell.into(), |max| truncate_str(cell, max, "…")));
            } else {
                text.push_str(cell);
                text.push_str(&" ".repeat(width + GAP - measure_text_width(cell)));
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::layout;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".into(), "long cell".into(), "x".into()], ["日本".into(), String::new(), "y z".into()]];
        let text = layout(["ID", "STATE", "WHAT"], &rows, None);
        assert_eq!(text, "ID    STATE      WHAT\na     long cell  x\n日本             y z\n");
    }

    #[test]
    fn only_the_last_column_is_cut_to_the_terminal() {
        let rows = [["a".into(), "0123456789abcdef".into()]];
        assert_eq!(layout(["ID", "WHAT"], &rows, Some(16)), "ID  WHAT\na   0123456789a…\n");
        assert_eq!(layout(["ID", "WHAT"], &rows, Some(3)), "ID  WHAT\na   012345678…\n");
    }
}
