package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestMain lets tests start the command as a real process: this binary with runMain set.
func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

const runMain = "FINGERPOST_TEST_RUN_MAIN"

func process(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), runMain+"=1")
	return cmd
}

// running is a dnsserver that answers.
type running struct {
	t         testing.TB
	cmd       *exec.Cmd
	lines     chan map[string]any // of its log
	Addresses []string
	HTTP      string
}

// start runs the command on loopback until the test ends and returns when it answers.
func start(t testing.TB, args ...string) *running {
	t.Helper()
	if !slices.Contains(args, "--listen") {
		args = append(args, "--listen", loopback()+":0")
	}
	args = append(args, "--log-format", "json", "--http-listen", loopback()+":0")
	return started(t, process(t, args...))
}

// started runs a command that logs in JSON.
func started(t testing.TB, cmd *exec.Cmd) *running {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, cmd: cmd, lines: make(chan map[string]any, 1000)}
	t.Cleanup(r.stop)
	go func() {
		defer close(r.lines)
		s := bufio.NewScanner(stderr)
		for s.Scan() {
			var line map[string]any
			if err := json.Unmarshal(s.Bytes(), &line); err != nil {
				line = map[string]any{"msg": s.Text()}
			}
			r.lines <- line
		}
	}()
	r.HTTP, _ = r.log("serving HTTP")["address"].(string)
	for _, a := range r.log("answering")["addresses"].([]any) {
		r.Addresses = append(r.Addresses, a.(string))
	}
	return r
}

// log waits for a line with the message.
func (r *running) log(msg string) map[string]any {
	r.t.Helper()
	var before []string
	for line := range r.lines {
		if line["msg"] == msg {
			return line
		}
		before = append(before, fmt.Sprint(line))
	}
	r.t.Fatalf("the server ended without logging %q, after:\n%s", msg, strings.Join(before, "\n"))
	return nil
}

// stop ends the server, which must end well.
func (r *running) stop() {
	if r.cmd.ProcessState != nil {
		return
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	for range r.lines {
	}
	if err := r.cmd.Wait(); err != nil && r.t.Context().Err() == nil {
		r.t.Errorf("the server ended with %v", err)
	}
}

func (r *running) signal(s os.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// dig asks the first address and returns rcode and the data of the answer.
func (r *running) dig(network, name string, qtype uint16) string {
	r.t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	reply, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second}).Exchange(m, r.Addresses[0])
	if err != nil {
		r.t.Fatalf("asking for %s: %v", name, err)
	}
	out := []string{dns.RcodeToString[reply.Rcode]}
	for _, rr := range reply.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return strings.Join(out, " ")
}

func (r *running) get(path string) (status int, body string) {
	r.t.Helper()
	resp, err := http.Get("http://" + r.HTTP + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// loopback is an address of this machine that nobody else uses.
func loopback() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

const header = "$TTL 300\n@ SOA ns hostmaster %d 3600 600 86400 60\n@ NS ns\nns A 10.0.0.1\n"

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func zoneFile(t testing.TB, dir, name string, serial int, records ...string) string {
	t.Helper()
	return write(t, filepath.Join(dir, name), fmt.Sprintf(header, serial)+strings.Join(records, "\n")+"\n")
}

func TestServesZonesFromFiles(t *testing.T) {
	dir := t.TempDir()
	one := zoneFile(t, dir, "one.zone", 1, "www A 10.0.0.2")
	zoneFile(t, dir, "two.zone", 2, "www A 10.0.0.3")
	three := zoneFile(t, t.TempDir(), "three.zone", 3, "www A 10.0.0.4")
	list := write(t, filepath.Join(dir, "zones"), "# comment\n\ntwo.test two.zone\nthree.test. "+three+"\n")
	r := start(t, "--zone", "one.test="+one, "--zone-list", list, "--listen", loopback()+":0", "--listen", "[::1]:0")
	if len(r.Addresses) != 2 {
		t.Fatalf("listens on %v", r.Addresses)
	}
	for range 2 {
		for name, want := range map[string]string{
			"www.one.test.": "NOERROR 10.0.0.2", "www.TWO.test.": "NOERROR 10.0.0.3", "www.three.test.": "NOERROR 10.0.0.4", "four.test.": "REFUSED",
		} {
			for _, network := range []string{"udp", "tcp"} {
				if got := r.dig(network, name, dns.TypeA); got != want {
					t.Errorf("%s over %s at %s is %q, wanted %q", name, network, r.Addresses[0], got, want)
				}
			}
		}
		r.Addresses = r.Addresses[1:]
		if len(r.Addresses) == 0 {
			break
		}
	}
	if status, body := r.get("/healthz"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz says %d %s", status, body)
	}
	if status, body := r.get("/readyz"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("/readyz says %d %s", status, body)
	}
	_, body := r.get("/metrics")
	for _, want := range []string{
		`fingerpost_dnsserver_responses_total{rcode="REFUSED",transport="tcp"} 2`, "fingerpost_dnsserver_zones 3", `fingerpost_dnsserver_zone_serial{zone="three.test."} 3`,
		`fingerpost_dnsserver_build_info{version="devel"} 1`, "go_goroutines", "process_open_fds",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

func TestHangupReadsFilesAgain(t *testing.T) {
	dir := t.TempDir()
	zoneFile(t, dir, "stays.zone", 1, "www A 10.0.0.2")
	zoneFile(t, dir, "changes.zone", 1, "www A 10.0.0.2")
	zoneFile(t, dir, "breaks.zone", 1, "www A 10.0.0.2")
	zoneFile(t, dir, "goes.zone", 1, "www A 10.0.0.2")
	list := filepath.Join(dir, "zones")
	write(t, list, "stays.test stays.zone\nchanges.test changes.zone\nbreaks.test breaks.zone\ngoes.test goes.zone\n")
	r := start(t, "--zone-list", list)
	expect := func(want map[string]string) {
		t.Helper()
		for name, want := range want {
			if got := r.dig("udp", name, dns.TypeA); got != want {
				t.Errorf("%s is %q, wanted %q", name, got, want)
			}
		}
	}
	expect(map[string]string{"www.stays.test.": "NOERROR 10.0.0.2", "www.changes.test.": "NOERROR 10.0.0.2", "www.goes.test.": "NOERROR 10.0.0.2"})

	zoneFile(t, dir, "changes.zone", 2, "www A 10.0.0.3")
	broken := zoneFile(t, dir, "breaks.zone", 2, "www A 10.0.0.3", "bad A 10.0.0")
	zoneFile(t, dir, "comes.zone", 1, "www A 10.0.0.4")
	write(t, list, "stays.test stays.zone\nchanges.test changes.zone\nbreaks.test breaks.zone\ncomes.test comes.zone\nnever.test never.zone\n")
	r.signal(syscall.SIGHUP)
	failure := r.log("zone not loaded, the old one stays")
	if text, _ := failure["err"].(string); !strings.HasPrefix(text, broken+":6:") || failure["zone"] != "breaks.test." {
		t.Errorf("a bad file is reported as %v", failure)
	}
	if missing := r.log("zone not loaded"); missing["zone"] != "never.test." {
		t.Errorf("a missing file is reported as %v", missing)
	}
	if done := r.log("zones reloaded"); done["changed"] != 2.0 || done["removed"] != 1.0 || done["failed"] != 2.0 || done["zones"] != 4.0 {
		t.Errorf("the reload is reported as %v", done)
	}
	expect(map[string]string{
		"www.stays.test.": "NOERROR 10.0.0.2", "www.changes.test.": "NOERROR 10.0.0.3", "www.breaks.test.": "NOERROR 10.0.0.2",
		"www.comes.test.": "NOERROR 10.0.0.4", "www.goes.test.": "REFUSED", "www.never.test.": "REFUSED",
	})

	write(t, list, "only half a line\nand\n")
	r.signal(syscall.SIGHUP)
	if failure := r.log("reload failed: all zones stay as they are"); !strings.Contains(failure["err"].(string), list+":2: ") {
		t.Errorf("a bad list is reported as %v", failure)
	}
	expect(map[string]string{"www.stays.test.": "NOERROR 10.0.0.2"})
}

func TestFaultsEndItWithOneClearLine(t *testing.T) {
	dir := t.TempDir()
	good := zoneFile(t, dir, "good.zone", 1)
	bad := zoneFile(t, dir, "bad.zone", 1, "www A 10.0.0", "mail A nowhere")
	noSOA := write(t, filepath.Join(dir, "nosoa.zone"), "$TTL 60\n@ NS ns\n")
	list := write(t, filepath.Join(dir, "list"), "good.test good.zone\n\nbad.test\n")
	badName := write(t, filepath.Join(dir, "badname"), "a..b good.zone\n")
	twice := write(t, filepath.Join(dir, "twice"), "good.test. good.zone\n")

	taken, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	free := loopback() + ":0"

	for sentence, tc := range map[string]struct {
		args []string
		want string // prefix of the line after "dnsserver: "
	}{
		"a bad record":              {[]string{"--zone", "bad.test=" + bad}, bad + ":5:7: zone bad.test.: "},
		"no SOA":                    {[]string{"--zone", "bad.test=" + noSOA}, noSOA + ": zone bad.test.: "},
		"no such file":              {[]string{"--zone", "bad.test=" + dir + "/nope"}, "zone bad.test.: open " + dir + "/nope: no such file"},
		"a folder":                  {[]string{"--zone", "bad.test=" + dir}, "zone bad.test.: read " + dir + ": is a directory"},
		"half a line in the list":   {[]string{"--zone-list", list}, "reading the list of zones: " + list + `:3: "bad.test" is not "NAME FILE"`},
		"a bad name in the list":    {[]string{"--zone-list", badName}, "reading the list of zones: " + badName + `:1: name "a..b" has an empty label`},
		"no list":                   {[]string{"--zone-list", dir + "/nope"}, "reading the list of zones: open " + dir + "/nope: no such file"},
		"a zone that comes twice":   {[]string{"--zone", "good.test=" + good, "--zone-list", twice}, "zone good.test. is given twice"},
		"a zone without a file":     {[]string{"--zone", "good.test"}, `--zone: "good.test" is not NAME=FILE`},
		"a zone with a bad name":    {[]string{"--zone", "a..b=x"}, `--zone: name "a..b" has an empty label`},
		"an address in use":         {[]string{"--zone", "good.test=" + good, "--listen", address}, "listening on " + address + ": address already in use"},
		"an HTTP address in use":    {[]string{"--zone", "good.test=" + good, "--listen", free, "--http-listen", address}, "listening on " + address + " for HTTP: address already in use"},
		"a host name to listen on":  {[]string{"--zone", "good.test=" + good, "--listen", "localhost:53"}, `--listen: "localhost:53" is not an address of this machine`},
		"nothing to serve":          {nil, "no zones to serve"},
		"files and a hub":           {[]string{"--zone", "good.test=" + good, "--hub", "hub:1", "--state-dir", dir}, "--zone for a server that runs alone does not go with --state-dir, --hub for one with a hub"},
		"flags of a hub without":    {[]string{"--sibling", "x:1"}, "--sibling needs --hub"},
		"a hub without certificate": {[]string{"--hub", "hub:1"}, "--hub needs --tls-dir"},
		"an unknown flag":           {[]string{"--zoen", "x"}, "unknown flag: --zoen"},
		"an argument":               {[]string{"example.test"}, `unknown command "example.test"`},
		"an unknown log format":     {[]string{"--zone", "good.test=" + good, "--log-format", "xml"}, `--log-format: "xml" is neither text nor json`},
	} {
		t.Run(sentence, func(t *testing.T) {
			if !slices.Contains(tc.args, "--http-listen") {
				tc.args = append(tc.args, "--http-listen", "")
			}
			var stdout, stderr bytes.Buffer
			cmd := process(t, tc.args...)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("it ended with %v", err)
			}
			lines := strings.Split(strings.TrimSuffix(stderr.String(), "\n"), "\n")
			lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "time=") })
			if len(lines) != 1 || !strings.HasPrefix(lines[0], "dnsserver: "+tc.want) || stdout.Len() > 0 {
				t.Errorf("it said\n%s%s\nwanted\ndnsserver: %s", stdout.String(), stderr.String(), tc.want)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	out, err := process(t, "--help").Output()
	if err != nil || !bytes.Contains(out, []byte("Examples:")) || !bytes.Contains(out, []byte("--zone-list FILE")) {
		t.Errorf("--help says %s, %v", out, err)
	}
	out, err = process(t, "--version").Output()
	if err != nil || string(out) != "dnsserver devel\n" {
		t.Errorf("--version says %s, %v", out, err)
	}
}

// TestTermAnswersWhatWasAsked ends the server while 20 clients ask one question after the
// other: none loses an answer to a question that it asked before.
func TestTermAnswersWhatWasAsked(t *testing.T) {
	dir := t.TempDir()
	r := start(t, "--zone", "one.test="+zoneFile(t, dir, "one.zone", 1, "www A 10.0.0.2"))
	m := new(dns.Msg)
	m.SetQuestion("www.one.test.", dns.TypeA)
	question, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	var answered, lost atomic.Int64
	var ended atomic.Bool // the signal is sent
	warm := make(chan struct{}, 20)
	for range 20 {
		clients.Go(func() {
			conn, err := net.Dial("udp", r.Addresses[0])
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for n := 0; ; n++ {
				before := !ended.Load()
				if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
					t.Error(err)
				}
				_, err := conn.Write(question)
				if err == nil {
					_, err = conn.Read(make([]byte, 512))
				}
				switch {
				case err == nil:
					answered.Add(1)
				case before:
					lost.Add(1)
					return
				default:
					return
				}
				if n == 100 {
					warm <- struct{}{}
				}
			}
		})
	}
	for range 20 {
		<-warm
	}
	ended.Store(true)
	r.signal(syscall.SIGTERM)
	r.log("stopped")
	clients.Wait()
	if lost.Load() > 0 {
		t.Errorf("%d questions asked before the signal were not answered, %d in all were", lost.Load(), answered.Load())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	exited := make(chan error, 1)
	go func() { exited <- r.cmd.Wait() }()
	select {
	case err := <-exited:
		if err != nil {
			t.Errorf("the server ended with %v", err)
		}
	case <-ctx.Done():
		t.Error("the server does not end")
	}
}

// TestFewFilesAreEnough: a server that may open fewer files than connections come makes room for
// those that come.
func TestFewFilesAreEnough(t *testing.T) {
	path := zoneFile(t, t.TempDir(), "one.zone", 1, "www A 10.0.0.2")
	cmd := process(t, "-c", `ulimit -n 64 && exec "$0" "$@"`, os.Args[0], "--zone", "one.test="+path, "--listen", loopback()+":0",
		"--threads", "1", "--log-format", "json", "--http-listen", loopback()+":0")
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = shell
	r := started(t, cmd)
	for range 200 {
		conn, err := net.Dial("tcp", r.Addresses[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	if got := r.dig("tcp", "ns.one.test.", dns.TypeNS); got != "NOERROR" {
		t.Errorf("after 200 connections it answers %q", got)
	}
}
