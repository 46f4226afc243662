-- name: finish
insert into generation (tenant_id, id, session_id, agent_name, provider, model, outcome, tokens_input, tokens_output,
  tokens_cached_input, tokens_reasoning, estimated, started_at, ended_at, requested_model, prompt_version, attempts)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
on conflict do nothing;

-- name: find
select * from generation where id = $1;
