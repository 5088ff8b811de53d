package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsdynamodb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/smithy-go/logging"

	"github.com/locum-ha/locum/physical"
)

// Config says where the item is and how the service is reached.
type Config struct {
	Table string // its partition key is the string "Key"; default "locum"
	Key   string // of the item: another one for each cluster in a table; default "locum"

	Region   string // default: the environment's or the shared configuration's, else us-east-1
	Endpoint string // URL of another service that speaks the protocol; default: Amazon's for the region

	// AccessKey and SecretKey are the credentials, SessionToken goes with temporary ones. Default: what the SDK finds in
	// the environment, shared files, or the instance's role.
	AccessKey    string
	SecretKey    physical.Secret
	SessionToken physical.Secret

	TLS physical.ClientTLS

	minTTL time.Duration // tests shorten it
}

const (
	defaultName   = "locum"
	defaultRegion = "us-east-1"

	// callTimeout bounds one request, whatever its context allows: a connection that died silently is given up. That is so
	// with HTTP/1.1 alone: over HTTP/2 only the request is, and the next ones follow it into the same dead connection.
	callTimeout = 10 * time.Second
)

// prepare checks the configuration, fills in defaults, and makes the client, without a request to the service.
func (c *Config) prepare(ctx context.Context) (*awsdynamodb.Client, *http.Transport, error) {
	if (c.AccessKey == "") != (c.SecretKey == "") {
		return nil, nil, errors.New("access_key and secret_key go together: one of them is missing")
	}
	if c.Table == "" {
		c.Table = defaultName
	}
	if c.Key == "" {
		c.Key = defaultName
	}
	if c.minTTL == 0 {
		c.minTTL = minTTL
	}
	if c.TLS.CAFile == "" {
		c.TLS.CAFile = os.Getenv("AWS_CA_BUNDLE") // as in every client of AWS
	}
	tlsConfig, err := c.TLS.Load()
	if err != nil {
		return nil, nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = tlsConfig
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	options := []func(*config.LoadOptions) error{
		config.WithLogger(logging.Nop{}),                                   // what matters is in the errors; by itself the SDK writes to stderr
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }), // a repeated write would meet itself as a stranger
	}
	if c.Region != "" {
		options = append(options, config.WithRegion(c.Region))
	}
	if c.AccessKey != "" {
		options = append(options, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey.Reveal(), c.SessionToken.Reveal())))
	}
	loaded, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("credentials: %w", err)
	}
	if loaded.Region == "" {
		loaded.Region = defaultRegion
	}
	client := awsdynamodb.NewFromConfig(loaded, func(o *awsdynamodb.Options) {
		o.HTTPClient = &http.Client{Transport: transport, Timeout: callTimeout}
		if c.Endpoint != "" {
			o.BaseEndpoint = aws.String(c.Endpoint)
		}
	})
	return client, transport, nil
}
