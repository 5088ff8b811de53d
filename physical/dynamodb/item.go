package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsdynamodb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/locum-ha/locum/internal/cell"
	"github.com/locum-ha/locum/physical"
)

// item is the lock's item as a cell: single requests, with errors in physical's terms.
type item struct {
	client     *awsdynamodb.Client
	table, key string
}

// The item's attributes.
const (
	attrKey     = "Key"
	attrValue   = "Value"
	attrVersion = "Version"
)

func (i *item) name() map[string]types.AttributeValue {
	return map[string]types.AttributeValue{attrKey: &types.AttributeValueMemberS{Value: i.key}}
}

// Read returns the value and its version, consistently.
func (i *item) Read(ctx context.Context) ([]byte, string, error) {
	out, err := i.client.GetItem(ctx, &awsdynamodb.GetItemInput{
		TableName: aws.String(i.table), Key: i.name(), ConsistentRead: aws.Bool(true),
	})
	if err != nil {
		return nil, "", i.refused(ctx, "read the lock", err, false)
	}
	if out.Item == nil {
		return nil, "", nil
	}
	value, isValue := out.Item[attrValue].(*types.AttributeValueMemberB)
	version, isVersion := out.Item[attrVersion].(*types.AttributeValueMemberN)
	if !isValue || !isVersion {
		return nil, "", fmt.Errorf("the item %q of the table %q is not Locum's: give the lock another key", i.key, i.table)
	}
	return value.Value, version.Value, nil
}

// Swap replaces the value of this version.
func (i *item) Swap(ctx context.Context, data []byte, version string) error {
	in := &awsdynamodb.PutItemInput{
		TableName: aws.String(i.table), Item: i.name(),
		ConditionExpression:      aws.String("attribute_not_exists(#v)"),
		ExpressionAttributeNames: map[string]string{"#v": attrVersion},
	}
	next := uint64(1)
	if version != "" {
		now, err := strconv.ParseUint(version, 10, 64)
		if err != nil {
			return fmt.Errorf("the lock's version %q is no number: %w", version, err)
		}
		next = now + 1
		in.ConditionExpression = aws.String("#v = :v")
		in.ExpressionAttributeValues = map[string]types.AttributeValue{":v": &types.AttributeValueMemberN{Value: version}}
	}
	in.Item[attrValue] = &types.AttributeValueMemberB{Value: data}
	in.Item[attrVersion] = &types.AttributeValueMemberN{Value: strconv.FormatUint(next, 10)}
	if _, err := i.client.PutItem(ctx, in); err != nil {
		return i.refused(ctx, "write the lock", err, true)
	}
	return nil
}

// refused translates an error. A write without an answer is unknown.
func (i *item) refused(ctx context.Context, what string, err error, write bool) error {
	var failed *types.ConditionalCheckFailedException
	if errors.As(err, &failed) {
		return cell.ErrChanged
	}
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
	case code >= 400 && code < 500:
		return fmt.Errorf("%w: %s: the service answers %d %s%s", physical.ErrUnavailable, what, code, name, i.hint(name))
	case write:
		return fmt.Errorf("%w: %s: %w", physical.ErrUnknown, what, plain(ctx, err))
	}
	return fmt.Errorf("%w: %s: %w", physical.ErrUnavailable, what, plain(ctx, err))
}

// hint says what to do about a refusal.
func (i *item) hint(name string) string {
	switch name {
	case "AccessDeniedException":
		return fmt.Sprintf("; needed are dynamodb:GetItem, dynamodb:PutItem and dynamodb:DescribeTable on the table %q, and dynamodb:CreateTable to have it made", i.table)
	case "UnrecognizedClientException", "InvalidSignatureException":
		return ": access_key, secret_key or session_token is wrong, or this host's clock"
	case "ExpiredTokenException":
		return ": the temporary credentials have run out"
	case "ResourceNotFoundException":
		return fmt.Sprintf(": the table %q is not there any more, or in another region than %s", i.table, i.client.Options().Region)
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

// ensureTable makes the table if it is not there, and waits until it takes requests.
func (i *item) ensureTable(ctx context.Context) error {
	active, err := i.describe(ctx)
	if err != nil || active {
		return err
	}
	_, err = i.client.CreateTable(ctx, &awsdynamodb.CreateTableInput{
		TableName: aws.String(i.table), BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String(attrKey), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String(attrKey), KeyType: types.KeyTypeHash}},
	})
	var exists *types.ResourceInUseException
	if err != nil && !errors.As(err, &exists) {
		return fmt.Errorf("there is no table %q, and it cannot be made (its partition key is the string %q): %w",
			i.table, attrKey, i.refused(ctx, "create the table", err, false))
	}
	for {
		if active, err := i.describe(ctx); err != nil || active {
			return err
		}
		timer := time.NewTimer(200 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// describe reports whether the table takes requests; false, too, if it is not there.
func (i *item) describe(ctx context.Context) (bool, error) {
	out, err := i.client.DescribeTable(ctx, &awsdynamodb.DescribeTableInput{TableName: aws.String(i.table)})
	var missing *types.ResourceNotFoundException
	switch {
	case errors.As(err, &missing):
		return false, nil
	case err != nil:
		var answer *awshttp.ResponseError
		if errors.As(err, &answer) && answer.HTTPStatusCode() == http.StatusBadRequest {
			var api smithy.APIError
			if errors.As(err, &api) && api.ErrorCode() == "AccessDeniedException" {
				return true, nil // it may not be described; the lock's own requests tell what else is missing
			}
		}
		return false, i.refused(ctx, "describe the table", err, false)
	}
	status := out.Table.TableStatus
	return status == types.TableStatusActive || status == types.TableStatusUpdating, nil
}
