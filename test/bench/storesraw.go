package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/go-zookeeper/zk"
	consul "github.com/hashicorp/consul/api"
	"github.com/jackc/pgx/v5/pgxpool"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// straight keeps 64 callers busy for a time and returns how many operations they did in a second.
func straight(ctx context.Context, length time.Duration, do func(ctx context.Context, caller, i int) error) (float64, error) {
	var done atomic.Int64
	errs := make([]error, callers)
	var wg sync.WaitGroup
	start := time.Now()
	for caller := range callers {
		wg.Go(func() {
			for i := 0; time.Since(start) < length; i++ {
				if errs[caller] = do(ctx, caller, i); errs[caller] != nil {
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(start).Seconds(), errors.Join(errs...)
}

// spread is how many connections a client gets that would be a bottleneck with one.
const spread = 4

func rawEtcd(_ context.Context, address string) (rawStore, error) {
	var clients []*clientv3.Client
	for range spread {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + address}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
		if err != nil {
			return rawStore{}, err
		}
		clients = append(clients, client)
	}
	var turn atomic.Uint64
	pick := func() *clientv3.Client { return clients[turn.Add(1)%spread] }
	return rawStore{
		put: func(ctx context.Context, key, value string) error {
			_, err := pick().Put(ctx, "bench/"+key, value)
			return err
		},
		get: func(ctx context.Context, key, _ string) error {
			answer, err := pick().Get(ctx, "bench/"+key)
			if err == nil && len(answer.Kvs) != 1 {
				err = fmt.Errorf("%s is not there", key)
			}
			return err
		},
		close: func() {
			for _, client := range clients {
				_ = client.Close()
			}
		},
	}, nil
}

func rawConsul(_ context.Context, address string) (rawStore, error) {
	cfg := consul.DefaultConfig()
	cfg.Address = address
	cfg.Transport.MaxIdleConnsPerHost = callers
	client, err := consul.NewClient(cfg)
	if err != nil {
		return rawStore{}, err
	}
	return rawStore{
		put: func(_ context.Context, key, value string) error {
			_, err := client.KV().Put(&consul.KVPair{Key: "bench/" + key, Value: []byte(value)}, nil)
			return err
		},
		get: func(_ context.Context, key, _ string) error {
			pair, _, err := client.KV().Get("bench/"+key, nil)
			if err == nil && pair == nil {
				err = fmt.Errorf("%s is not there", key)
			}
			return err
		},
		close: cfg.Transport.CloseIdleConnections,
	}, nil
}

// silent keeps ZooKeeper's client from printing.
type silent struct{}

func (silent) Printf(string, ...any) {}

func rawZooKeeper(_ context.Context, address string) (rawStore, error) {
	var conns []*zk.Conn
	for range spread {
		conn, _, err := zk.Connect([]string{address}, 10*time.Second, zk.WithLogger(silent{}))
		if err != nil {
			return rawStore{}, err
		}
		conns = append(conns, conn)
	}
	if _, err := conns[0].Create("/bench", nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
		return rawStore{}, err
	}
	var turn atomic.Uint64
	pick := func() *zk.Conn { return conns[turn.Add(1)%spread] }
	return rawStore{
		put: func(_ context.Context, key, value string) error {
			_, err := pick().Create("/bench/"+key, []byte(value), 0, zk.WorldACL(zk.PermAll))
			return err
		},
		get: func(_ context.Context, key, _ string) error {
			_, _, err := pick().Get("/bench/" + key)
			return err
		},
		close: func() {
			for _, conn := range conns {
				conn.Close()
			}
		},
	}, nil
}

func rawPostgreSQL(ctx context.Context, address string) (rawStore, error) {
	pool, err := pgxpool.New(ctx, fmt.Sprintf("postgres://locum:secret@%s/locum?sslmode=disable&pool_max_conns=%d", address, callers))
	if err != nil {
		return rawStore{}, err
	}
	if _, err := pool.Exec(ctx, "CREATE TABLE bench (key text PRIMARY KEY, value bytea NOT NULL)"); err != nil {
		pool.Close()
		return rawStore{}, err
	}
	return rawStore{
		put: func(ctx context.Context, key, value string) error {
			_, err := pool.Exec(ctx, "INSERT INTO bench (key, value) VALUES ($1, $2)", key, []byte(value))
			return err
		},
		get: func(ctx context.Context, key, _ string) error {
			var value []byte
			return pool.QueryRow(ctx, "SELECT value FROM bench WHERE key = $1", key).Scan(&value)
		},
		close: pool.Close,
	}, nil
}

func rawMySQL(ctx context.Context, address string) (rawStore, error) {
	db, err := sql.Open("mysql", fmt.Sprintf("locum:secret@tcp(%s)/locum?interpolateParams=true", address))
	if err != nil {
		return rawStore{}, err
	}
	db.SetMaxOpenConns(callers)
	db.SetMaxIdleConns(callers)
	if _, err := db.ExecContext(ctx, "CREATE TABLE bench (k VARBINARY(200) PRIMARY KEY, v LONGBLOB NOT NULL)"); err != nil {
		_ = db.Close()
		return rawStore{}, err
	}
	return rawStore{
		put: func(ctx context.Context, key, value string) error {
			_, err := db.ExecContext(ctx, "INSERT INTO bench (k, v) VALUES (?, ?)", key, []byte(value))
			return err
		},
		get: func(ctx context.Context, key, _ string) error {
			var value []byte
			return db.QueryRowContext(ctx, "SELECT v FROM bench WHERE k = ?", key).Scan(&value)
		},
		close: func() { _ = db.Close() },
	}, nil
}
