//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// columns is how wide the output is at most.
const columns = 100

// terminal writes the story.
type terminal struct {
	w     io.Writer
	color bool
}

// newTerminal writes to a file, in colour if that is a terminal and NO_COLOR is not set.
func newTerminal(file *os.File) terminal {
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return terminal{w: file, color: err == nil && os.Getenv("NO_COLOR") == ""}
}

const (
	bold  = "\x1b[1m"
	green = "\x1b[32m"
	cyan  = "\x1b[36m"
)

func (t terminal) line(style, text string) {
	if t.color && style != "" && text != "" {
		text = style + text + "\x1b[0m"
	}
	fmt.Fprintln(t.w, text)
}

// heading begins a step.
func (t terminal) heading(text string) {
	t.line("", "")
	t.line(bold, text)
}

// say writes prose in lines of at most the terminal's columns.
func (t terminal) say(format string, args ...any) {
	for _, l := range wrap(fmt.Sprintf(format, args...), columns) {
		t.line("", l)
	}
}

// told writes something that was measured or found true.
func (t terminal) told(format string, args ...any) {
	for i, l := range wrap(fmt.Sprintf(format, args...), columns-4) {
		mark := "  = "
		if i > 0 {
			mark = "    "
		}
		t.line(green, mark+l)
	}
}

// command writes what is about to be run.
func (t terminal) command(text string) {
	for i, l := range continued(text, columns-8) {
		mark := "  $ "
		if i > 0 {
			mark = "      "
		}
		t.line(cyan, mark+l)
	}
}

// continued breaks a command line into lines of at most width characters, where a shell lets it go on: behind a pipe, or
// with a backslash. A flag stays with its value, and quoted text is not broken but at line breaks of its own.
func continued(text string, width int) []string {
	var lines []string
	for l := range strings.SplitSeq(text, "\n") {
		line := ""
		for _, unit := range units(l) {
			switch {
			case line == "":
				line = unit
			case len(line)+len(unit)+len(" ")+len(" \\") <= width:
				line += " " + unit
			case strings.HasSuffix(line, "|"):
				lines, line = append(lines, line), unit
			default:
				lines, line = append(lines, line+" \\"), unit
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// unit is what is kept together of a command line: a word, or a flag and its value.
var unit = regexp.MustCompile(`(?:-[^\s'"=]+ )?(?:[^\s'"]|'[^']*'?|"[^"]*"?)+`)

func units(line string) []string {
	found := unit.FindAllString(line, -1)
	for i, u := range found {
		found[i] = strings.TrimSpace(u)
	}
	return found
}

// output writes what a command printed.
func (t terminal) output(lines []string) {
	for _, l := range lines {
		t.line("", clip("    "+l, columns))
	}
}

// trim leaves of a command's output what matters.
type trim func(lines []string) []string

// first keeps n lines and says how many were left out.
func first(n int) trim {
	return func(lines []string) []string {
		if len(lines) <= n+1 { // saying that one is left out takes a line too
			return lines
		}
		return append(lines[:n:n], fmt.Sprintf("... and %d lines more", len(lines)-n))
	}
}

// perType keeps the first record of each type, and says how many were left out.
func perType(lines []string) []string {
	var kept []string
	seen := map[string]bool{}
	for _, l := range lines {
		fields := strings.Fields(l) // OWNER TTL CLASS TYPE ...
		if len(fields) < 4 || seen[fields[3]] {
			continue
		}
		seen[fields[3]] = true
		kept = append(kept, l)
	}
	if left := len(lines) - len(kept); left > 0 {
		kept = append(kept, fmt.Sprintf("... and %d lines more", left))
	}
	return kept
}

// having keeps the lines that have one of the texts in them.
func having(texts ...string) trim {
	return func(lines []string) []string {
		var kept []string
		for _, l := range lines {
			for _, text := range texts {
				if strings.Contains(l, text) {
					kept = append(kept, l)
					break
				}
			}
		}
		return kept
	}
}

// without drops lines that have a text in them.
func without(text string) trim {
	return func(lines []string) []string {
		return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return strings.Contains(l, text) })
	}
}

// section keeps the part of `kubectl describe` under a title, without what is indented less.
func section(title string) trim {
	return func(lines []string) []string {
		depth := func(l string) int { return len(l) - len(strings.TrimLeft(l, " ")) }
		at := slices.IndexFunc(lines, func(l string) bool { return strings.TrimSpace(l) == title })
		if at < 0 {
			return lines
		}
		end := at + 1
		for end < len(lines) && depth(lines[end]) > depth(lines[at]) {
			end++
		}
		kept := make([]string, 0, end-at)
		for _, l := range lines[at:end] {
			kept = append(kept, l[depth(lines[at]):])
		}
		return kept
	}
}

// table keeps the columns with these headings, in the order that kubectl has them, and marks where others were.
func table(headings ...string) trim {
	return func(lines []string) []string {
		if len(lines) == 0 {
			return nil
		}
		all := heading.FindAllStringIndex(lines[0], -1)
		kept := make([]string, len(lines))
		for i, at := range all {
			from, to := at[0], -1
			if i+1 < len(all) {
				to = all[i+1][0]
			}
			title := lines[0][from:at[1]]
			is := slices.Contains(headings, title)
			gap := !is && !strings.HasSuffix(kept[0], "...   ")
			for j, l := range lines {
				switch {
				case is && (to < 0 || to > len(l)):
					kept[j] += l[min(from, len(l)):]
				case is:
					kept[j] += l[from:to]
				case gap && j == 0:
					kept[j] += "...   "
				case gap:
					kept[j] += "      "
				}
			}
		}
		for j := range kept {
			kept[j] = strings.TrimRight(kept[j], " ")
		}
		return kept
	}
}

// heading is the title of a column of kubectl.
var heading = regexp.MustCompile(`[^ ]+`)

// wrapped breaks lines that are too long instead of cutting them.
func wrapped(lines []string) []string {
	var all []string
	for _, l := range lines {
		if len(l) <= columns-4 {
			all = append(all, l)
			continue
		}
		indent := len(l) - len(strings.TrimLeft(l, " "))
		for i, part := range wrap(strings.TrimSpace(l), columns-4-indent-2) {
			if i > 0 {
				part = "  " + part
			}
			all = append(all, strings.Repeat(" ", indent)+part)
		}
	}
	return all
}

// plain makes one space of the tabs and spaces between fields.
func plain(lines []string) []string {
	all := make([]string, len(lines))
	for i, l := range lines {
		all[i] = strings.Join(strings.Fields(l), " ")
	}
	return all
}

// linesOf returns the lines of a text that are not empty, without space at their ends.
func linesOf(text string) []string {
	var lines []string
	for l := range strings.Lines(strings.ReplaceAll(text, "\t", "  ")) {
		if l = strings.TrimRight(l, " \r\n"); l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

// wrap breaks a text at spaces into lines of at most width characters; a word that is longer is cut into pieces.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width {
			line += " " + word
			continue
		}
		if line != "" {
			lines = append(lines, line)
		}
		runes := []rune(word)
		for len(runes) > width {
			lines = append(lines, string(runes[:width]))
			runes = runes[width:]
		}
		line = string(runes)
	}
	return append(lines, line)
}

// clip cuts a line to width characters and marks the cut.
func clip(line string, width int) string {
	if runes := []rune(line); len(runes) > width {
		return string(runes[:width-3]) + "..."
	}
	return line
}
