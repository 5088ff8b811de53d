package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/locum-ha/locum/internal/cell"
	"github.com/locum-ha/locum/physical"
)

// objects are single requests to the service, with errors in physical's terms.
type objects struct {
	client *awss3.Client
	bucket string
	path   string // with "/" at its end

	// repeated has a request that may be made twice made again where the service answers 5xx or not at all, as its own advice is.
	repeated func(*awss3.Options)
}

// repeatable are tries of one request, and the longest pause between two.
const (
	tries     = 3
	longPause = 200 * time.Millisecond
)

// newObjects has one budget of repeats for all requests: a service that answers nothing but errors is not asked three times as often.
func newObjects(client *awss3.Client, bucket, path string) objects {
	retryer := retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = tries, longPause })
	return objects{client: client, bucket: bucket, path: path, repeated: func(o *awss3.Options) { o.Retryer = retryer }}
}

var (
	errNoObject  = errors.New("no such object")
	errUnchanged = errors.New("not modified")
	errMeanwhile = errors.New("another write of it is under way")
)

// get reads an object and its ETag: errNoObject, or errUnchanged where its ETag is known.
func (o *objects) get(ctx context.Context, name, known string) (data []byte, etag string, err error) {
	in := &awss3.GetObjectInput{Bucket: aws.String(o.bucket), Key: aws.String(o.path + name)}
	if known != "" {
		in.IfNoneMatch = aws.String(known)
	}
	out, err := o.client.GetObject(ctx, in, o.repeated)
	if err != nil {
		return nil, "", o.refused(ctx, "get "+name, err, false)
	}
	defer out.Body.Close()
	if data, err = io.ReadAll(out.Body); err != nil {
		return nil, "", o.refused(ctx, "get "+name, err, false)
	}
	return data, aws.ToString(out.ETag), nil
}

// put writes an object under a name that nobody else uses.
func (o *objects) put(ctx context.Context, name string, data []byte) error {
	_, err := o.client.PutObject(ctx, &awss3.PutObjectInput{
		Bucket: aws.String(o.bucket), Key: aws.String(o.path + name), Body: bytes.NewReader(data),
	}, o.repeated)
	if err != nil {
		return o.refused(ctx, "put "+name, err, false) // whether or not it is there does not matter
	}
	return nil
}

// swap replaces the object of this ETag ("": there is none yet). cell.ErrChanged, physical.ErrUnknown.
func (o *objects) swap(ctx context.Context, name string, data []byte, etag string, opts ...func(*awss3.Options)) (string, error) {
	in := &awss3.PutObjectInput{Bucket: aws.String(o.bucket), Key: aws.String(o.path + name), Body: bytes.NewReader(data)}
	if etag == "" {
		in.IfNoneMatch = aws.String("*")
	} else {
		in.IfMatch = aws.String(etag)
	}
	out, err := o.client.PutObject(ctx, in, opts...)
	if err != nil {
		return "", o.refused(ctx, "swap "+name, err, true)
	}
	return aws.ToString(out.ETag), nil
}

// list returns the names below prefix that are greater than after, a page of them, and whether there are more.
func (o *objects) list(ctx context.Context, prefix, after string) (names []string, more bool, err error) {
	in := &awss3.ListObjectsV2Input{Bucket: aws.String(o.bucket), Prefix: aws.String(o.path + prefix)}
	if after != "" {
		in.StartAfter = aws.String(o.path + after)
	}
	out, err := o.client.ListObjectsV2(ctx, in, o.repeated)
	if err != nil {
		return nil, false, o.refused(ctx, "list", err, false)
	}
	for _, one := range out.Contents {
		names = append(names, strings.TrimPrefix(aws.ToString(one.Key), o.path))
	}
	return names, aws.ToBool(out.IsTruncated), nil
}

// remove deletes up to 1000 objects.
func (o *objects) remove(ctx context.Context, names []string) error {
	in := &awss3.DeleteObjectsInput{Bucket: aws.String(o.bucket), Delete: &types.Delete{Quiet: aws.Bool(true)}}
	for _, name := range names {
		in.Delete.Objects = append(in.Delete.Objects, types.ObjectIdentifier{Key: aws.String(o.path + name)})
	}
	out, err := o.client.DeleteObjects(ctx, in, o.repeated)
	if err != nil {
		return o.refused(ctx, "delete", err, false)
	}
	if len(out.Errors) > 0 { // the answer is 200 all the same
		e := out.Errors[0]
		return fmt.Errorf("%w: delete %s (%d of %d): the service answers %s%s", physical.ErrUnavailable,
			strings.TrimPrefix(aws.ToString(e.Key), o.path), len(out.Errors), len(names), aws.ToString(e.Code), o.hint(0, aws.ToString(e.Code)))
	}
	return nil
}

// refused translates an error. A write whose outcome is unclear is unknown only where that matters.
func (o *objects) refused(ctx context.Context, what string, err error, matters bool) error {
	var answer *awshttp.ResponseError
	code := 0
	if errors.As(err, &answer) {
		code = answer.HTTPStatusCode()
	}
	var api smithy.APIError
	name := ""
	if errors.As(err, &api) {
		name = api.ErrorCode()
	}
	switch {
	case code == http.StatusNotModified:
		return errUnchanged
	case code == http.StatusPreconditionFailed:
		return fmt.Errorf("%s: %w (%d)", what, cell.ErrChanged, code)
	case code == http.StatusConflict:
		return fmt.Errorf("%s: %w: %w (%d)", what, cell.ErrChanged, errMeanwhile, code)
	case name == "NoSuchBucket":
		return fmt.Errorf("%w: there is no bucket %q: create it", physical.ErrUnavailable, o.bucket)
	case code == http.StatusNotFound:
		return errNoObject // of a swap, too: If-Match on what is not there
	case code >= 300 && code < 500: // redirects, too: the request was not carried out here
		return fmt.Errorf("%w: %s: the service answers %d %s%s", physical.ErrUnavailable, what, code, name, o.hint(code, name))
	case matters:
		return fmt.Errorf("%w: %s: %w", physical.ErrUnknown, what, plain(ctx, err))
	}
	return fmt.Errorf("%w: %s: %w", physical.ErrUnavailable, what, plain(ctx, err))
}

// hint says what to do about a refusal.
func (o *objects) hint(code int, name string) string {
	switch name {
	case "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return ": access_key or secret_key is wrong"
	case "ExpiredToken", "InvalidToken":
		return ": the temporary credentials have run out, or session_token is not theirs"
	case "RequestTimeTooSkewed":
		return ": this host's clock is wrong"
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException":
		return fmt.Sprintf(": the bucket is in another region than %s: set region", o.client.Options().Region)
	}
	switch {
	case code >= 300 && code < 400:
		return fmt.Sprintf(": the bucket is in another region than %s: set region", o.client.Options().Region)
	case code == http.StatusForbidden, name == "AccessDenied":
		return fmt.Sprintf("; needed are s3:GetObject, s3:PutObject and s3:DeleteObject on the objects below %q, and s3:ListBucket on the bucket %q", o.path, o.bucket)
	}
	return ""
}

// plain is an error without the client library's types: the context's cause, or its text.
func plain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return errors.New(err.Error())
}

// probe makes sure that the service honours conditions: one that ignores them would let two nodes write. Nodes that start together
// may meet here, which says nothing of conditions and is asked again.
func (o *objects) probe(ctx context.Context) error {
	const name = "probe"
	mark := []byte(time.Now().UTC().Format(time.RFC3339Nano))
	if err := o.swapAlone(ctx, name, mark, ""); err != nil && !errors.Is(err, cell.ErrChanged) {
		return err
	} // it is there now, or was
	if err := o.swapAlone(ctx, name, mark, ""); !errors.Is(err, cell.ErrChanged) {
		return probed("If-None-Match", err)
	}
	if err := o.swapAlone(ctx, name, mark, `"00000000000000000000000000000000"`); !errors.Is(err, cell.ErrChanged) {
		return probed("If-Match", err)
	}
	return nil
}

// swapAlone is swap, made again while another write of the same object is under way. It may be carried out twice.
func (o *objects) swapAlone(ctx context.Context, name string, data []byte, etag string) error {
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		_, err := o.swap(ctx, name, data, etag, o.repeated)
		if !errors.Is(err, errMeanwhile) {
			return err
		}
		if !pauseFor(ctx, pause/2+rand.N(pause)) {
			return fmt.Errorf("%w: %s: %w", physical.ErrUnavailable, name, context.Cause(ctx))
		}
	}
}

func probed(condition string, err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("this service ignores %s on PutObject: without conditional writes two nodes could write at once; use a service that has them, or another data store", condition)
}
