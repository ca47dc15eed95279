//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
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

// command writes what is about to be run. Its own line breaks stay.
func (t terminal) command(text string) {
	for i, l := range strings.Split(text, "\n") {
		mark := "  $ "
		if i > 0 {
			mark = "      "
		}
		t.line(cyan, mark+strings.TrimSpace(l))
	}
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

// wrapped breaks lines that are too long instead of cutting them.
func wrapped(lines []string) []string {
	var all []string
	for _, l := range lines {
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
	for _, word := range strings.Fields(text) {
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
