//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"
)

// The test binary is the demo too, or a process that holds a lock.
const (
	demoVariable   = "FINGERPOST_TEST_DEMO"
	lockerVariable = "FINGERPOST_TEST_LOCKER"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(demoVariable) != "":
		main()
	case os.Getenv(lockerVariable) != "":
		if _, err := lock(os.Getenv(lockerVariable)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test closes it
	default:
		os.Exit(m.Run())
	}
}

// demoCommand returns a command that is the demo. Its folders are in tmp.
func demoCommand(t *testing.T, tmp string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), demoVariable+"=1", "TMPDIR="+tmp)
	return cmd
}

func TestTheStoryIsToldToItsEndAndLeavesNothing(t *testing.T) {
	tmp, err := os.MkdirTemp("", "demo-*") //nolint:usetesting // that of the test has a long name, and paths of sockets are at most 107 octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	var out bytes.Buffer
	cmd := demoCommand(t, tmp)
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	t.Logf("%s", out.Bytes())
	if err != nil {
		logs, _ := filepath.Glob(filepath.Join(tmp, "*", "logs", "*.log"))
		for _, l := range logs {
			content, _ := os.ReadFile(l)
			t.Logf("%s:\n%s", filepath.Base(l), content[max(0, len(content)-3000):])
		}
		t.Fatal(err)
	}
	for l := range strings.Lines(out.String()) {
		if utf8.RuneCountInString(strings.TrimRight(l, "\n")) > columns {
			t.Errorf("more than %d columns: %s", columns, l)
		}
		if strings.Contains(l, "\x1b") {
			t.Errorf("colour where there is no terminal: %q", l)
		}
	}
	told := map[string]bool{}
	for l := range strings.Lines(out.String()) {
		told[withoutNumbers(l)] = true
	}
	for _, l := range readmeCommands(t) {
		if !told[withoutNumbers(l)] {
			t.Errorf("README.md shows this command, the story does not: %s", l)
		}
	}
	nothingLeft(t, tmp)
}

// readmeCommands returns the command lines of what README.md shows of the story.
func readmeCommands(t *testing.T) (commands []string) {
	t.Helper()
	content, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(content), "```console\n")
	shown, _, ended := strings.Cut(after, "```\n")
	if !found || !ended {
		t.Fatal("README.md shows nothing of the story")
	}
	for l := range strings.Lines(shown) {
		if strings.HasPrefix(l, "$ ") {
			commands = append(commands, l)
		}
	}
	return commands
}

// withoutNumbers makes lines equal that differ in what was measured or in the number of a process.
func withoutNumbers(line string) string { return number.ReplaceAllString(strings.TrimSpace(line), "N") }

var number = regexp.MustCompile(`[0-9]+`)

// nothingLeft waits until no process knows of a folder, and fails if the folder is not empty then.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	late := time.After(20 * time.Second)
	for again := time.Tick(20 * time.Millisecond); len(processesIn(t, dir)) > 0; {
		select {
		case <-again:
		case <-late:
			t.Fatalf("processes left: %v", processesIn(t, dir))
		}
	}
	if left := filesIn(t, dir); len(left) > 0 {
		t.Errorf("files left: %v", left)
	}
}

func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// processesIn returns the programs that were started with the folder in an argument or a variable.
func processesIn(t *testing.T, dir string) (programs []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		arguments, _ := os.ReadFile(filepath.Join(p, "cmdline")) // it may have ended, or be another user's
		variables, _ := os.ReadFile(filepath.Join(p, "environ"))
		if bytes.Contains(append(arguments, variables...), []byte(dir)) {
			program, _, _ := bytes.Cut(arguments, []byte{0})
			programs = append(programs, string(program))
		}
	}
	return programs
}

func TestARunThatIsCutShortLeavesNothing(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{
		"interrupted from the terminal": syscall.SIGINT,
		"asked to end":                  syscall.SIGTERM,
		"killed":                        syscall.SIGKILL,
	} {
		t.Run(name, func(t *testing.T) {
			tmp := t.TempDir()
			cmd := demoCommand(t, tmp)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for lines.Scan() && !strings.Contains(lines.Text(), "leads after") {
			}
			if running := processesIn(t, tmp); len(running) < 6 { // the demo's two, etcd, kube-apiserver, two managers
				t.Errorf("these run: %q", running)
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			for lines.Scan() { // until the last process that could write has ended
			}
			if err := cmd.Wait(); err == nil {
				t.Error("it ended as if the story were told")
			}
			nothingLeft(t, tmp)
		})
	}
}

func TestTheHolderOfALockIsFound(t *testing.T) {
	dir := t.TempDir()
	if pid, err := lockHolder(dir); pid != 0 || err != nil {
		t.Errorf("a folder without lock is held by %d, %v", pid, err)
	}
	locker := exec.CommandContext(t.Context(), os.Args[0])
	locker.Env = append(os.Environ(), lockerVariable+"="+dir)
	in, err := locker.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := locker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := locker.Start(); err != nil {
		t.Fatal(err)
	}
	if said, err := bufio.NewReader(out).ReadString('\n'); err != nil || said != "locked\n" {
		t.Fatalf("the locker says %q, %v", said, err)
	}
	if pid, err := lockHolder(dir); pid != locker.Process.Pid || err != nil {
		t.Errorf("held by %d, %v, want %d", pid, err, locker.Process.Pid)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := awaitUnlocked(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if err := locker.Wait(); err != nil {
		t.Error(err)
	}
}

func TestTheMistakeIsInTheLineThatTheStoryNames(t *testing.T) {
	content, err := os.ReadFile("legacy.zone")
	if err != nil {
		t.Fatal(err)
	}
	if line := strings.Split(string(content), "\n")[legacyLine-1]; !strings.Contains(line, "10.1.4.300") {
		t.Errorf("line %d is %q", legacyLine, line)
	}
}

func TestTrims(t *testing.T) {
	lines := []string{"a 1", "b  2", "c 3", "d 4"}
	describe := linesOf("Status:\n  Findings:\n    Line:  5\n    Reason:\tBad\n\n  Parent:  x\nEvents:\n")
	for name, test := range map[string]struct{ got, want []string }{
		"the first lines, and how many are left out": {first(2)(lines), []string{"a 1", "b  2", "... and 2 lines more"}},
		"a single line more is not left out":         {first(3)(lines), lines},
		"lines with one of the texts":                {having("1", "d")(lines), []string{"a 1", "d 4"}},
		"lines without a text":                       {without("b")(lines), []string{"a 1", "c 3", "d 4"}},
		"one record of each type":                    {perType([]string{"a. 1 IN NS x.", "a. 1 IN NS y.", "a. 1 IN DS 1 2"}), []string{"a. 1 IN NS x.", "a. 1 IN DS 1 2", "... and 1 lines more"}},
		"columns, and where others were": {table("NAME", "READY")([]string{"NAME   ZONE   AGE   READY   REASON", "a      a.b    1s    True    Ready", "bc            2s            None"}),
			[]string{"NAME   ...   READY   ...", "a            True", "bc"}},
		"one space between fields":                      {plain([]string{"a \t b   c"}), []string{"a b c"}},
		"a section of what kubectl describe prints":     {section("Findings:")(describe), []string{"Findings:", "  Line:  5", "  Reason:  Bad"}},
		"text is wrapped at spaces":                     {wrap("one two three", 7), []string{"one two", "three"}},
		"a command goes on behind a backslash":          {continued("manager --namespace fingerpost --listen 127.0.0.1 &", 34), []string{`manager --namespace fingerpost \`, "--listen 127.0.0.1 &"}},
		"or behind a pipe":                              {continued("kubectl create configmap | kubectl apply -f -", 30), []string{"kubectl create configmap |", "kubectl apply -f -"}},
		"quoted text is not broken":                     {continued(`kubectl get -o jsonpath='{.a b}{"c d"}' pods`, 20), []string{`kubectl get \`, `-o jsonpath='{.a b}{"c d"}' \`, "pods"}},
		"but at its own line breaks":                    {continued("kubectl patch -p '{a\nb}'", 40), []string{"kubectl patch -p '{a", "b}'"}},
		"a word that is too long is cut into pieces":    {wrap("abcdefgh ij", 5), []string{"abcde", "fgh", "ij"}},
		"a line that is too long is clipped":            {[]string{clip("abcdefgh", 6)}, []string{"abc..."}},
		"a line that just fits is not clipped":          {[]string{clip("abcdef", 6)}, []string{"abcdef"}},
		"nothing is wrapped into one line of nothing":   {wrap("", 10), []string{""}},
		"wrapped lines keep their indentation":          {wrapped([]string{"  " + strings.Repeat("x ", 60)}), []string{"  " + strings.TrimSpace(strings.Repeat("x ", 46)), "    " + strings.TrimSpace(strings.Repeat("x ", 14))}},
		"durations are rounded to what is worth a look": {[]string{inWords(1234567), inWords(123456789), inWords(12345678901)}, []string{"1.2 ms", "123 ms", "12.3 s"}},
	} {
		if !slices.Equal(test.got, test.want) {
			t.Errorf("%s: got %q, want %q", name, test.got, test.want)
		}
	}
}
