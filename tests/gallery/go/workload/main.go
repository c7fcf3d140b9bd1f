// A workload on SPIFFE's own library: says who the Workload API says that it is.
//
//	workload ID [ROTATIONS]
//
// It fetches its X.509 identity, which has to be ID, checks it against the bundle, and then watches
// until it was renewed ROTATIONS times, each time by another certificate and key. An ID of "none"
// means that it must be refused one.
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("usage: workload ID [ROTATIONS]")
	}
	rotations := 0
	if len(os.Args) > 2 {
		var err error
		if rotations, err = strconv.Atoi(os.Args[2]); err != nil {
			log.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := run(ctx, os.Args[1], rotations); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, id string, rotations int) error {
	svid, err := workloadapi.FetchX509SVID(ctx)
	if id == "none" {
		if status.Code(err) != codes.PermissionDenied {
			return fmt.Errorf("not refused: %v", err)
		}
		fmt.Println("refused, as it should be")
		return nil
	}
	if err != nil {
		return err
	}
	if svid.ID.String() != id {
		return fmt.Errorf("called %s, not %s", svid.ID, id)
	}
	bundles, err := workloadapi.FetchX509Bundles(ctx)
	if err != nil {
		return err
	}
	if _, _, err := x509svid.Verify(svid.Certificates, bundles); err != nil {
		return err
	}
	fmt.Printf("called %s, which the bundle confirms\n", svid.ID)
	if rotations == 0 {
		return nil
	}
	w := &watcher{renewed: make(chan *x509svid.SVID), failed: make(chan error, 1)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go workloadapi.WatchX509Context(ctx, w)
	return w.follow(ctx, id, rotations)
}

type watcher struct {
	renewed chan *x509svid.SVID
	failed  chan error
}

func (w *watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	w.renewed <- update.DefaultSVID()
}

func (w *watcher) OnX509ContextWatchError(err error) {
	select {
	case w.failed <- err:
	default:
	}
}

// follow waits for the first identity and its renewals.
func (w *watcher) follow(ctx context.Context, id string, rotations int) error {
	var last []byte
	for i := 0; i <= rotations; i++ {
		select {
		case svid := <-w.renewed:
			now := svid.Certificates[0].RawSubjectPublicKeyInfo
			if svid.ID.String() != id || bytes.Equal(now, last) {
				return fmt.Errorf("renewal %d: %s, key renewed: %v", i, svid.ID, !bytes.Equal(now, last))
			}
			if !svid.Certificates[0].NotAfter.After(time.Now()) {
				return fmt.Errorf("renewal %d came too late", i)
			}
			last = now
		case err := <-w.failed:
			return err
		case <-ctx.Done():
			return fmt.Errorf("no renewal %d: %w", i, ctx.Err())
		}
	}
	fmt.Printf("renewed %d times\n", rotations)
	return nil
}
