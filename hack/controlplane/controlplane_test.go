package controlplane

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"golang.org/x/sys/unix"
)

// TestMain lets this binary be the parent of a control plane that TestNothingOutlivesAKilledParent kills.
func TestMain(m *testing.M) {
	if os.Getenv("FINGERPOST_TEST_PARENT") == "" {
		os.Exit(m.Run())
	}
	dir := os.Getenv("FINGERPOST_TEST_PARENT")
	cp, err := Start(context.Background(), Options{Dir: dir})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(cp.etcd.PID(), cp.apiServer.PID())
	select {}
}

func begin(t *testing.T, options Options) *ControlPlane {
	t.Helper()
	cp, err := Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cp.Stop(); err != nil {
			t.Error(err)
		}
	})
	return cp
}

func clientOf(t *testing.T, kubeconfig string) *kubernetes.Clientset {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func makeConfigMap(t *testing.T, client *kubernetes.Clientset, name string) {
	t.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func hasConfigMap(t *testing.T, client *kubernetes.Clientset, name string) bool {
	t.Helper()
	_, err := client.CoreV1().ConfigMaps("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err == nil
}

func TestTheAPIServerCanBeStoppedAndStartedOverTheSameData(t *testing.T) {
	cp := begin(t, Options{})
	client := clientOf(t, cp.Kubeconfig())
	makeConfigMap(t, client, "kept")
	if err := cp.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", cp.options.APIServer.String()); err == nil {
		conn.Close()
		t.Error("the API server's port accepts while it is stopped")
	}
	if err := cp.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !hasConfigMap(t, client, "kept") {
		t.Error("an object made before is gone")
	}
}

func TestAFolderStartedAgainHasTheSameObjectsForTheSameClients(t *testing.T) {
	port, release, err := hold(netip.MustParseAddr("127.0.0.2"))
	if err != nil {
		t.Fatal(err)
	}
	release()
	options := Options{Dir: t.TempDir(), APIServer: port}
	first, err := Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	user := filepath.Join(t.TempDir(), "user.kubeconfig")
	if err := first.WriteKubeconfig(user, "alice", "system:masters"); err != nil {
		t.Fatal(err)
	}
	makeConfigMap(t, clientOf(t, user), "kept")
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	begin(t, options)
	if !hasConfigMap(t, clientOf(t, user), "kept") {
		t.Error("an object made before is gone")
	}
}

func TestControlPlanesAtTheSameTimeAreApartAndHoldTheirUsersToRBAC(t *testing.T) {
	a, b := begin(t, Options{}), begin(t, Options{})
	makeConfigMap(t, clientOf(t, a.Kubeconfig()), "only-in-a")
	if hasConfigMap(t, clientOf(t, b.Kubeconfig()), "only-in-a") {
		t.Error("an object of one is in the other")
	}
	nobody := filepath.Join(t.TempDir(), "nobody.kubeconfig")
	if err := b.WriteKubeconfig(nobody, "nobody"); err != nil {
		t.Fatal(err)
	}
	if _, err := clientOf(t, nobody).CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a user without roles listed secrets: %v", err)
	}
}

func TestStopLeavesNothing(t *testing.T) {
	cp := begin(t, Options{})
	etcd, apiServer := cp.etcd, cp.apiServer
	if err := cp.Stop(); err != nil {
		t.Fatal(err)
	}
	<-etcd.Exited()
	<-apiServer.Exited()
	if _, err := os.Stat(cp.dir); err == nil {
		t.Error("the temporary folder is still there")
	}
}

func TestAnAddressInUseIsToldInTheError(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, options := range map[string]Options{
		"of the API server": {APIServer: netip.MustParseAddrPort(taken.Addr().String())},
		"of etcd":           {Etcd: netip.MustParseAddrPort(taken.Addr().String())},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Start(t.Context(), options); err == nil || !strings.Contains(err.Error(), "address already in use") {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func TestNothingOutlivesAKilledParent(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), "FINGERPOST_TEST_PARENT="+t.TempDir())
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pids [2]int
	if _, err := fmt.Sscan(line, &pids[0], &pids[1]); err != nil {
		t.Fatalf("the parent said %q", line)
	}
	var children []unix.PollFd
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		children = append(children, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed
	for _, child := range children {
		const patience = 30_000 // ms
		if n, err := unix.Poll([]unix.PollFd{child}, patience); n != 1 {
			t.Errorf("a child lives on: %v", err)
		}
	}
}
